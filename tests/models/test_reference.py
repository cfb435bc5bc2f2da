"""The default model is the reference to the letter."""

import pytest
import torch

from vaekit.config import ModelConfig
from vaekit.errors import UserError
from vaekit.models.gaussian import MAX_LOG_VARIANCE, MIN_LOG_VARIANCE
from vaekit.models.vae import VAE, num_parameters, require_fit

REFERENCE = """\
VAE(
  (enc): Encoder(
    (conv1): Conv2d(1, 16, kernel_size=(3, 3), stride=(1, 1))
    (conv2): Conv2d(16, 32, kernel_size=(3, 3), stride=(1, 1))
    (linear): Linear(in_features=18432, out_features=512, bias=True)
    (linear2): Linear(in_features=512, out_features=256, bias=True)
    (mu): Linear(in_features=256, out_features=10, bias=True)
    (var): Linear(in_features=256, out_features=10, bias=True)
  )
  (dec): Decoder(
    (linear): Linear(in_features=10, out_features=256, bias=True)
    (linear2): Linear(in_features=256, out_features=512, bias=True)
    (linear3): Linear(in_features=512, out_features=18432, bias=True)
    (deconv1): ConvTranspose2d(32, 16, kernel_size=(3, 3), stride=(1, 1))
    (deconv2): ConvTranspose2d(16, 1, kernel_size=(3, 3), stride=(1, 1))
  )
)"""


class ReferenceVAE(torch.nn.Module):
    """The reference written out by hand, as an oracle of what is computed."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.enc = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(1, 16, 3),
                "conv2": nn.Conv2d(16, 32, 3),
                "linear": nn.Linear(32 * 24 * 24, 512),
                "linear2": nn.Linear(512, 256),
                "mu": nn.Linear(256, 10),
                "var": nn.Linear(256, 10),
            }
        )
        self.dec = nn.ModuleDict(
            {
                "linear": nn.Linear(10, 256),
                "linear2": nn.Linear(256, 512),
                "linear3": nn.Linear(512, 32 * 24 * 24),
                "deconv1": nn.ConvTranspose2d(32, 16, 3),
                "deconv2": nn.ConvTranspose2d(16, 1, 3),
            }
        )

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for layer in ("conv1", "conv2"):
            x = self.enc[layer](x).relu()
        x = x.view(len(x), -1)
        for layer in ("linear", "linear2"):
            x = self.enc[layer](x).relu()
        return self.enc["mu"](x), self.enc["var"](x)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        for layer in ("linear", "linear2", "linear3"):
            z = self.dec[layer](z).relu()
        return self.dec["deconv2"](self.dec["deconv1"](z.view(-1, 32, 24, 24)).relu())


def test_the_default_prints_as_the_reference_and_has_its_parameters() -> None:
    vae = VAE()
    assert str(vae) == REFERENCE
    assert num_parameters(vae) == 19_173_749


def test_the_references_weights_load_strictly_and_compute_the_same() -> None:
    torch.manual_seed(0)
    reference, vae = ReferenceVAE(), VAE()
    vae.load_state_dict(reference.state_dict(), strict=True)
    images, noise = torch.rand(3, 1, 28, 28), torch.randn(3, 10)
    with torch.no_grad():
        output = vae(images, noise)
        mean, log_variance = reference.encode(images)
        logits = reference.decode(mean + (log_variance / 2).exp() * noise)
    torch.testing.assert_close(output.posterior.mean, mean)
    torch.testing.assert_close(output.posterior.log_variance, log_variance)
    torch.testing.assert_close(output.outputs, logits)


def test_the_log_variance_stays_finite_where_the_layer_explodes() -> None:
    vae = VAE(ModelConfig(latent_dim=2, conv_channels=(2,), hidden_dims=(4,)), (1, 8, 8))
    torch.nn.init.constant_(vae.enc.var.bias, 1e30)
    assert vae.encode(torch.rand(1, 1, 8, 8)).log_variance.tolist() == [[MAX_LOG_VARIANCE] * 2]
    torch.nn.init.constant_(vae.enc.var.bias, -1e30)
    assert vae.encode(torch.rand(1, 1, 8, 8)).log_variance.tolist() == [[MIN_LOG_VARIANCE] * 2]


def test_images_too_small_for_the_convolutions_are_refused() -> None:
    config = ModelConfig(conv_channels=(2,) * 6)
    for make in (VAE, require_fit):
        with pytest.raises(UserError, match=r"more than 12 pixels a side, these have 12x12"):
            make(config, (1, 12, 12))
    require_fit(config, (1, 13, 13))
