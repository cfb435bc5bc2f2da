"""The convolutional VAE: Encoder, Decoder, and both as one."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from vaekit.config import ModelConfig
from vaekit.errors import UserError

# Shapes in comments: B batch, C channels, H height, W width, L latent dimensions.
ImageShape = tuple[int, int, int]
KERNEL_SIZE = 3

# exp() of these bounds is far inside float32; a trained model stays well within them.
MIN_LOG_VARIANCE = -30.0
MAX_LOG_VARIANCE = 20.0


class Posterior(NamedTuple):
    """The encoder's diagonal Gaussian over latents, float32."""

    mean: Tensor  # [B, L]
    log_variance: Tensor  # [B, L]

    def sample(self, noise: Tensor) -> Tensor:
        """Latents [B, L] from standard normal `noise` [B, L] (the reparameterisation trick)."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise


class VAEOutput(NamedTuple):
    """What a pass through the VAE gives."""

    logits: Tensor  # [B, C, H, W]; a sigmoid makes them Bernoulli means
    posterior: Posterior


class Encoder(nn.Module):
    """Images [B, C, H, W] in [0, 1] to a posterior over latents."""

    def __init__(self, config: ModelConfig, image_shape: ImageShape) -> None:
        super().__init__()
        channels = [image_shape[0], *config.conv_channels]
        self._convs = _numbered("conv", len(config.conv_channels), first="1")
        for name, inputs, outputs in zip(self._convs, channels, channels[1:], strict=False):
            self.add_module(name, nn.Conv2d(inputs, outputs, KERNEL_SIZE))
        widths = [math.prod(feature_shape(config, image_shape)), *config.hidden_dims]
        self._linears = _numbered("linear", len(config.hidden_dims))
        for name, inputs, outputs in zip(self._linears, widths, widths[1:], strict=False):
            self.add_module(name, nn.Linear(inputs, outputs))
        self.mu = nn.Linear(widths[-1], config.latent_dim)
        self.var = nn.Linear(widths[-1], config.latent_dim)

    def forward(self, images: Tensor) -> Posterior:
        hidden = images
        for name in self._convs:
            hidden = relu(self.get_submodule(name)(hidden))
        hidden = hidden.flatten(start_dim=1)
        for name in self._linears:
            hidden = relu(self.get_submodule(name)(hidden))
        log_variance = self.var(hidden).float().clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)
        return Posterior(self.mu(hidden).float(), log_variance)


class Decoder(nn.Module):
    """Latents [B, L] to the logits [B, C, H, W] of Bernoulli pixels; the encoder's mirror."""

    def __init__(self, config: ModelConfig, image_shape: ImageShape) -> None:
        super().__init__()
        self._feature_shape = feature_shape(config, image_shape)
        widths = [config.latent_dim, *reversed(config.hidden_dims), math.prod(self._feature_shape)]
        self._linears = _numbered("linear", len(widths) - 1)
        for name, inputs, outputs in zip(self._linears, widths, widths[1:], strict=False):
            self.add_module(name, nn.Linear(inputs, outputs))
        channels = [*reversed(config.conv_channels), image_shape[0]]
        self._deconvs = _numbered("deconv", len(config.conv_channels), first="1")
        for name, inputs, outputs in zip(self._deconvs, channels, channels[1:], strict=False):
            self.add_module(name, nn.ConvTranspose2d(inputs, outputs, KERNEL_SIZE))

    def forward(self, latents: Tensor) -> Tensor:
        hidden = latents
        for name in self._linears:
            hidden = relu(self.get_submodule(name)(hidden))
        hidden = hidden.reshape(-1, *self._feature_shape)
        *inner, last = self._deconvs
        for name in inner:
            hidden = relu(self.get_submodule(name)(hidden))
        logits: Tensor = self.get_submodule(last)(hidden)
        return logits


class VAE(nn.Module):
    """A variational autoencoder with Bernoulli pixels (Kingma and Welling, 2014).

    Without arguments it is the reference: 28x28 images of one channel, 10 latent dimensions.
    `image_shape` is (channels, height, width). Raises `UserError` for images too small for
    the convolutions.
    """

    def __init__(
        self, config: ModelConfig | None = None, image_shape: ImageShape = (1, 28, 28)
    ) -> None:
        super().__init__()
        self.config = config or ModelConfig()
        self.image_shape = image_shape
        self.enc = Encoder(self.config, image_shape)
        self.dec = Decoder(self.config, image_shape)

    def forward(self, images: Tensor, noise: Tensor) -> VAEOutput:
        """`images` [B, C, H, W] in [0, 1], standard normal `noise` [B, L]."""
        posterior = self.enc(images)
        return VAEOutput(self.dec(posterior.sample(noise)), posterior)

    def decode(self, latents: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] from latents [B, L]: the means of the pixels."""
        return torch.sigmoid(self.dec(latents).float())


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def feature_shape(config: ModelConfig, image_shape: ImageShape) -> ImageShape:
    """Shape of the last convolution's output; each convolution takes off a border of 1 pixel."""
    _, height, width = image_shape
    lost = (KERNEL_SIZE - 1) * len(config.conv_channels)
    if min(height, width) <= lost:
        raise UserError(
            f"--model.conv_channels {list(config.conv_channels)}: {len(config.conv_channels)} "
            f"convolutions need images of more than {lost} pixels a side, these have "
            f"{height}x{width}; give fewer convolutions or a larger --data.image_size"
        )
    return config.conv_channels[-1], height - lost, width - lost


def _numbered(stem: str, count: int, first: str = "") -> list[str]:
    """The reference's layer names: linear, linear2, linear3; conv1, conv2."""
    return [stem + (first if i == 1 else str(i)) for i in range(1, count + 1)]
