"""Whatever its architecture, a VAE encodes, decodes and bounds images of its shape."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from vaekit.config import LikelihoodName, ModelConfig
from vaekit.models.conv import ResidualBlock, Thumbnail
from vaekit.models.gaussian import Posterior
from vaekit.models.likelihoods import LIKELIHOODS
from vaekit.models.settle import settle_model
from vaekit.models.vae import ARCHITECTURES, VAE, VAEOutput
from vaekit.settings import from_dict, to_dict

SHAPE = (2, 9, 8)
CONFIGS = {
    "reference": ModelConfig("reference", "bernoulli", 4, None, (2, 3), (8,)),
    "conv": ModelConfig("conv", "bernoulli", 4, width=3),
}
CONFIG = CONFIGS["reference"]


def a_vae() -> VAE:
    torch.manual_seed(0)
    return VAE(CONFIG, SHAPE).requires_grad_(False)


def a_batch() -> tuple[Tensor, Tensor]:
    """Images of two values and noise."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(5, *SHAPE, generator=generator).round()
    return images, torch.randn(5, CONFIG.latent_dim, generator=generator)


def test_every_architecture_is_tested_here() -> None:
    assert CONFIGS.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize(
    ("config", "image_shape"),
    [
        (ModelConfig(latent_dim=2, conv_channels=(4,), hidden_dims=(8,)), (3, 16, 16)),
        (ModelConfig(latent_dim=5, conv_channels=(2, 3, 4), hidden_dims=(9, 8, 7)), (4, 9, 13)),
        (ModelConfig(latent_dim=2), (3, 16, 16)),
        (ModelConfig(latent_dim=5, width=3), (4, 9, 13)),
        (ModelConfig(latent_dim=1, width=1), (1, 70, 33)),
        (ModelConfig(latent_dim=3, width=2), (1, 1, 2)),
    ],
)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_vae_takes_any_channels_sizes_and_widths(
    config: ModelConfig, image_shape: tuple[int, int, int], likelihood: LikelihoodName
) -> None:
    vae = VAE(replace(config, likelihood=likelihood), image_shape)
    images, noise = torch.rand(2, *image_shape), torch.randn(2, vae.latent_dim)
    posterior = vae.encode(images)
    assert posterior.mean.shape == posterior.log_variance.shape == (2, config.latent_dim)
    assert vae.decode(noise).shape == (2, *image_shape)
    loss = vae.elbo(images, noise).loss
    assert loss.shape == (2,)
    loss.sum().backward()
    assert all(parameter.grad is not None for parameter in vae.parameters())


def test_pixels_of_a_model_that_was_recorded_before_they_were_shuffled_come_as_they_did() -> None:
    recorded = to_dict(settle_model(CONFIGS["conv"], SHAPE))
    del recorded["to_pixels"]
    before = VAE(from_dict(ModelConfig, recorded), SHAPE).dec
    assert [*before.state_dict()][-2:] == ["stages.0.weight", "stages.0.bias"]
    assert before.get_parameter("stages.0.weight").shape == (12, 2, 3, 3)
    assert before(torch.zeros(1, 4)).shape == (1, *SHAPE)


def test_a_model_that_was_recorded_before_thumbnails_has_its_linear_ways() -> None:
    config = replace(CONFIGS["conv"], likelihood="gaussian")
    recorded = to_dict(settle_model(replace(config, thumbnail=False), SHAPE))
    del recorded["thumbnail"]
    before = VAE(from_dict(ModelConfig, recorded), SHAPE).state_dict()
    ways = {name for name in before if ".components." in name}
    of_both = {
        f"{half}.components.{name}" for half in ("enc", "dec") for name in ("centre", "weight")
    }
    assert ways == of_both
    assert not any("thumbnail" in name for name in before)


def test_a_model_that_was_recorded_before_norms_of_blocks_has_none() -> None:
    shape = (1, 16, 16)
    recorded = to_dict(settle_model(CONFIGS["conv"], shape))
    now = VAE(from_dict(ModelConfig, recorded), shape).state_dict()
    del recorded["block_norm"]
    before = VAE(from_dict(ModelConfig, recorded), shape).state_dict()
    assert {*now} - {*before} == {"dec.stages.0.4.weight", "dec.stages.0.4.bias"}
    assert [name for name in now if name in before] == [*before]


def test_a_model_that_was_recorded_before_bottlenecks_of_blocks_has_all_channels() -> None:
    shape = (1, 16, 16)
    recorded = to_dict(settle_model(CONFIGS["conv"], shape))
    del recorded["block_bottleneck"]
    before = VAE(from_dict(ModelConfig, recorded), shape)
    blocks = [each for each in before.modules() if isinstance(each, ResidualBlock)]
    assert [len(each.norm.weight) for each in blocks] == [6, 12, 6]
    for block in blocks:
        channels = len(block.norm.weight)
        assert block.conv.weight.shape == block.conv2.weight.shape == (channels, channels, 3, 3)


@pytest.mark.parametrize(
    ("shape", "side"),
    [((3, 16, 16), 2), ((1, 8, 8), 1), ((1, 6, 8), 1), ((2, 17, 9), 3), ((1, 64, 48), 8)],
)
def test_a_thumbnail_is_the_means_of_squares(shape: tuple[int, int, int], side: int) -> None:
    images = torch.rand(2, *shape)
    channels, height, width = shape
    border = ((0, 0), (0, 0), (0, -height % side), (0, -width % side))
    whole = np.pad(images.numpy(), border, mode="edge")
    small = whole.reshape(2, channels, whole.shape[2] // side, side, -1, side).mean(axis=(3, 5))
    values = small.reshape(2, -1)
    thumbnail = Thumbnail(values.shape[1], shape)
    thumbnail.linear.weight.data = torch.eye(values.shape[1])
    np.testing.assert_allclose(thumbnail(images).detach(), (values - 0.5) / 0.25, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_has_no_buffers_and_gives_float32_posteriors(name: str) -> None:
    vae = VAE(CONFIGS[name], SHAPE)
    assert not list(vae.buffers())
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(torch.rand(2, *SHAPE))
    assert posterior.mean.dtype == posterior.log_variance.dtype == torch.float32


def test_the_elbo_is_the_log_likelihood_of_the_decoded_sample_less_the_kl() -> None:
    vae, (images, noise) = a_vae(), a_batch()
    mean, log_variance = vae.encode(images)
    deviation = (log_variance / 2).exp()
    decoded = Bernoulli(vae.decode(mean + deviation * noise))
    reconstruction = -decoded.log_prob(images).sum(dim=(1, 2, 3))
    kl = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum(dim=1)
    elbo = vae.elbo(images, noise)
    torch.testing.assert_close(elbo.reconstruction, reconstruction)
    torch.testing.assert_close(elbo.kl, kl)
    torch.testing.assert_close(elbo.loss, reconstruction + kl)


def test_the_bound_is_on_the_clean_images_where_the_encoder_saw_noisy_ones() -> None:
    vae, (images, noise) = a_vae(), a_batch()
    seen = images + 0.3
    bound = vae.bound(vae(seen, noise), images)
    decoded = Bernoulli(vae.decode(vae.encode(seen).sample(noise)))
    torch.testing.assert_close(bound.reconstruction, -decoded.log_prob(images).sum(dim=(1, 2, 3)))


def test_low_precision_outputs_are_summed_in_float32() -> None:
    vae = VAE(CONFIG, (1, 32, 32))
    outputs = torch.full((1, 1, 32, 32), 3.0, dtype=torch.bfloat16)
    posterior = Posterior(torch.zeros(1, 4), torch.zeros(1, 4))
    elbo = vae.bound(VAEOutput(outputs, posterior), torch.zeros(1, 1, 32, 32))
    assert elbo.reconstruction.dtype == torch.float32
    torch.testing.assert_close(
        elbo.reconstruction, torch.nn.functional.softplus(torch.tensor([3.0])) * 1024
    )
