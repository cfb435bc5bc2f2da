"""The reference's convolutional encoder, and the decoder that mirrors it."""

import math

from torch import Tensor, nn
from torch.nn.functional import relu

from vaekit.config import ModelConfig
from vaekit.errors import UserError
from vaekit.images.pixels import ImageShape
from vaekit.models.gaussian import MAX_LOG_VARIANCE, MIN_LOG_VARIANCE, Posterior

KERNEL_SIZE = 3


class Encoder(nn.Module):
    """Images [B, C, H, W] in [0, 1] to a posterior over latents.

    `image_shape` is (channels, height, width). Raises `UserError` for images too small for the
    convolutions.
    """

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
    """Latents [B, L] to outputs [B, *output_shape]; the encoder's mirror."""

    def __init__(self, config: ModelConfig, output_shape: ImageShape) -> None:
        super().__init__()
        self._feature_shape = feature_shape(config, output_shape)
        widths = [config.latent_dim, *reversed(config.hidden_dims), math.prod(self._feature_shape)]
        self._linears = _numbered("linear", len(widths) - 1)
        for name, inputs, outputs in zip(self._linears, widths, widths[1:], strict=False):
            self.add_module(name, nn.Linear(inputs, outputs))
        channels = [*reversed(config.conv_channels), output_shape[0]]
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
        outputs: Tensor = self.get_submodule(last)(hidden)
        return outputs


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
