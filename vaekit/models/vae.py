"""The VAE: an architecture's encoder and decoder, and a likelihood of the pixels."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaekit.config import ModelConfig, settled
from vaekit.images.mapped import PixelArray
from vaekit.images.pixels import ImageShape
from vaekit.models import conv, reference
from vaekit.models.gaussian import Posterior, kl_divergence
from vaekit.models.likelihoods import LIKELIHOODS
from vaekit.models.objective import NegativeElbo
from vaekit.models.settle import REFERENCE, settle_model

# Shapes in comments: B batch, C channels, H height, W width, L latent dimensions,
# K samples of an image's latents; one where K isn't named.


# Adam moves a weight by about its rate a step, however steep the loss. A scale falls tenfold while
# a VAE learns, which at that pace would take longer than most runs have steps; until it has, the
# KL outweighs the reconstruction.
SCALE_GAIN = 10.0


class Architecture(NamedTuple):
    """The two halves of a VAE, each made from its settings and a shape, and how they start.

    Encoders map images [B, *image_shape] to a `Posterior`, its log-variance clamped, both float32
    also under autocast. Decoders map latents [B, L] to outputs [B, *image_shape]. Both raise
    `UserError` for shapes that they can't take. They have parameters, but no buffers: running
    statistics would have no place in the average of the weights and in a recorded step, and would
    depend on the number of ranks.
    """

    encoder: Callable[[ModelConfig, ImageShape], nn.Module]
    decoder: Callable[[ModelConfig, ImageShape], nn.Module]
    start: Callable[[Any, Any, PixelArray], float | None] | None = None
    """Gives an encoder and a decoder what training images [N, C, H, W] tell without training, and
    tells the variance of a pixel that is left; None: both start as they are made."""


ARCHITECTURES = {
    "reference": Architecture(reference.Encoder, reference.Decoder),
    "conv": Architecture(conv.Encoder, conv.Decoder, conv.start_from_images),
}


class VAEOutput(NamedTuple):
    """What a pass through the VAE gives."""

    outputs: Tensor  # [K * B, C, H, W], what the likelihood takes
    posterior: Posterior


class VAE(nn.Module):
    """A variational autoencoder (Kingma and Welling, 2014).

    Without arguments it is the reference: 28x28 images of one channel, 10 latent dimensions,
    Bernoulli pixels. `image_shape` is (channels, height, width), and settles what `config` leaves
    `auto`. Raises `UserError` for images too small for the convolutions.
    """

    scale: nn.Parameter | None  # what the likelihood's log-scale [1] is learnt as

    def __init__(
        self, config: ModelConfig | None = None, image_shape: ImageShape = (1, 28, 28)
    ) -> None:
        super().__init__()
        self.config = settle_model(config or REFERENCE, image_shape)
        self.image_shape = image_shape
        self.likelihood = LIKELIHOODS[self.config.likelihood]
        architecture = ARCHITECTURES[self.config.architecture]
        self.enc = architecture.encoder(self.config, image_shape)
        self.dec = architecture.decoder(self.config, image_shape)
        initial = self.likelihood.initial_log_scale
        self.scale = None
        if initial is not None:
            self.scale = nn.Parameter(torch.full((1,), initial / SCALE_GAIN))

    @torch.no_grad()
    def start_from(self, pixels: PixelArray) -> None:
        """Begin with what the training images, uint8 [N, C, H, W], tell before any training."""
        start = ARCHITECTURES[self.config.architecture].start
        variance = None if start is None else start(self.enc, self.dec, pixels)
        if variance is not None and self.scale is not None:
            deviation = self.likelihood.scale_of_deviation * math.sqrt(variance)
            self.scale.fill_(math.log(deviation) / SCALE_GAIN)

    @property
    def log_scale(self) -> Tensor | None:
        """That of the likelihood, [1]; None where it has none."""
        return None if self.scale is None else SCALE_GAIN * self.scale

    @property
    def latent_dim(self) -> int:
        """Number of latent dimensions."""
        return settled(self.config.latent_dim)

    def forward(self, images: Tensor, noise: Tensor) -> VAEOutput:
        """`images` [B, C, H, W] in [0, 1], standard normal `noise` [B, L], or [K, B, L]."""
        posterior = self.encode(images)
        latents = posterior.sample(noise).flatten(end_dim=-2)
        return VAEOutput(self.dec(latents), posterior)

    def encode(self, images: Tensor) -> Posterior:
        """The posterior over the latents of `images` [B, C, H, W] in [0, 1]."""
        posterior: Posterior = self.enc(images)
        return posterior

    def decode(self, latents: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] from latents [B, L]: the means of the pixels."""
        return self.likelihood.mean(self.dec(latents).float())

    def elbo(self, images: Tensor, noise: Tensor) -> NegativeElbo:
        """The bound on `images` [B, C, H, W] in [0, 1], z sampled by `noise` [B, L]."""
        return self.bound(self(images, noise), images)

    def bound(self, output: VAEOutput, images: Tensor) -> NegativeElbo:
        """The bound on `images`, in float32, after a pass that gave `output`.

        It is the mean over K samples. The pass may have run in a lower precision, or seen other
        images, as noisy ones.
        """
        nats = self.sample_nats(output, images).mean(dim=0)
        return NegativeElbo(nats, kl_divergence(output.posterior))

    def sample_nats(self, output: VAEOutput, images: Tensor) -> Tensor:
        """Minus the log-likelihood of `images` [B, C, H, W] given each sample, [K, B]."""
        num_samples = len(output.outputs) // len(images)
        repeated = images.float().repeat(num_samples, 1, 1, 1)
        nats = self.likelihood.nats(repeated, output.outputs.float(), self.log_scale)
        return nats.reshape(num_samples, len(images))


def require_fit(config: ModelConfig, image_shape: ImageShape) -> None:
    """Raise `UserError` where a VAE of `config` can't take images of `image_shape`."""
    with torch.device("meta"):  # takes no memory, however large the model
        VAE(config, image_shape)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
