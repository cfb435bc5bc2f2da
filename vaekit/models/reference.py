"""The reference's convolutional encoder, and the decoder that mirrors it."""

import math

from torch import Tensor, nn
from torch.nn.functional import relu

from vaekit.config import ModelConfig, settled
from vaekit.errors import UserError
from vaekit.images.pixels import ImageShape
from vaekit.models.few_channels import Conv2d, ConvTranspose2d
from vaekit.models.gaussian import MAX_LOG_VARIANCE, MIN_LOG_VARIANCE, Posterior

KERNEL_SIZE = 3


class Encoder(nn.Module):
    """Images [B, C, H, W] in [0, 1] to a posterior over latents.

    `image_shape` is (channels, height, width). Raises `UserError` for images too small for the
    convolutions.
    """

    def __init__(self, config: ModelConfig, image_shape: ImageShape) -> None:
        super().__init__()
        conv_channels, latent_dim = settled(config.conv_channels), settled(config.latent_dim)
        channels = [image_shape[0], *conv_channels]
        self._convs = _numbered("conv", len(conv_channels), first="1")
        for name, inputs, outputs in zip(self._convs, channels, channels[1:], strict=False):
            self.add_module(name, Conv2d(inputs, outputs, KERNEL_SIZE))
        hidden_dims = settled(config.hidden_dims)
        widths = [math.prod(feature_shape(config, image_shape)), *hidden_dims]
        self._linears = _numbered("linear", len(hidden_dims))
        for name, inputs, outputs in zip(self._linears, widths, widths[1:], strict=False):
            self.add_module(name, nn.Linear(inputs, outputs))
        self.mu = nn.Linear(widths[-1], latent_dim)
        self.var = nn.Linear(widths[-1], latent_dim)

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
    """Latents [B, L] to outputs [B, *image_shape]; the encoder's mirror."""

    def __init__(self, config: ModelConfig, image_shape: ImageShape) -> None:
        super().__init__()
        self._feature_shape = feature_shape(config, image_shape)
        conv_channels, hidden_dims = settled(config.conv_channels), settled(config.hidden_dims)
        flat = math.prod(self._feature_shape)
        widths = [settled(config.latent_dim), *reversed(hidden_dims), flat]
        self._linears = _numbered("linear", len(widths) - 1)
        for name, inputs, outputs in zip(self._linears, widths, widths[1:], strict=False):
            self.add_module(name, nn.Linear(inputs, outputs))
        channels = [*reversed(conv_channels), image_shape[0]]
        self._deconvs = _numbered("deconv", len(conv_channels), first="1")
        for name, inputs, outputs in zip(self._deconvs, channels, channels[1:], strict=False):
            self.add_module(name, ConvTranspose2d(inputs, outputs, KERNEL_SIZE))

    def forward(self, latents: Tensor) -> Tensor:
        hidden = latents
        for name in self._linears:
            hidden = relu(self.get_submodule(name)(hidden))
        hidden = hidden.reshape(-1, *self._feature_shape)
        *inner, last = self._deconvs
        for name in inner:
            hidden = relu(self.get_submodule(name)(hidden))
        outputs: Tensor = self.get_submodule(last)(hidden)
        return outputs


def feature_shape(config: ModelConfig, image_shape: ImageShape) -> ImageShape:
    """Shape of the last convolution's output; each convolution takes off a border of 1 pixel."""
    _, height, width = image_shape
    conv_channels = settled(config.conv_channels)
    lost = (KERNEL_SIZE - 1) * len(conv_channels)
    if min(height, width) <= lost:
        raise UserError(
            f"--model.conv_channels {list(conv_channels)}: {len(conv_channels)} "
            f"convolutions need images of more than {lost} pixels a side, these have "
            f"{height}x{width}; give fewer convolutions or a larger --data.image_size"
        )
    return conv_channels[-1], height - lost, width - lost


def _numbered(stem: str, count: int, first: str = "") -> list[str]:
    """The reference's layer names: linear, linear2, linear3; conv1, conv2."""
    return [stem + (first if i == 1 else str(i)) for i in range(1, count + 1)]
