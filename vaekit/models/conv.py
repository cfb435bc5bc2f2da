"""A strided convolutional encoder with residual blocks, and the decoder that mirrors it.

Where outputs are means of pixels, not logits, the encoder sees a thumbnail, too, or a linear way
lies beside both (linear_way.py).
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, silu

from vaekit.config import ModelConfig, settled
from vaekit.images.mapped import PixelArray
from vaekit.images.pixels import ImageShape
from vaekit.models.few_channels import Conv2d
from vaekit.models.gaussian import MAX_LOG_VARIANCE, MIN_LOG_VARIANCE, Posterior
from vaekit.models.linear_way import (
    LinearDecoder,
    LinearEncoder,
    factor_of,
    made_small,
    small_shape,
    start_as_components,
)
from vaekit.models.settle import starts_from_components

KERNEL_SIZE = 3
SMALLEST_SIDE = 4  # pixels: features are halved until their shorter side has no more
LARGEST_BLOCK = 8  # pixels of the shorter side up to which a residual block pays
WIDENING = 4  # of the smallest features against the largest
HIDDEN_DIM = 256
MAX_GROUPS = 8
THUMBNAIL_SIDE = 8  # pixels that its longer side has at most
MIDDLE, DEVIATION = 0.5, 0.25  # of pixels, about


class Stage(NamedTuple):
    """The features of one resolution."""

    channels: int
    size: tuple[int, int]  # height and width


class Encoder(nn.Module):
    """Images [B, C, H, W] in [0, 1] to a posterior over latents.

    `image_shape` is (channels, height, width), of any size.
    """

    def __init__(self, config: ModelConfig, image_shape: ImageShape) -> None:
        super().__init__()
        latent_dim, stages = settled(config.latent_dim), feature_stages(config, image_shape)
        self.stages = nn.Sequential()
        channels = image_shape[0]
        is_narrow = settled(config.block_bottleneck)
        for stage in stages:
            down = Conv2d(channels, stage.channels, KERNEL_SIZE, stride=2, padding=1)
            self.stages.append(nn.Sequential(down, *_rest_of(stage, is_narrow=is_narrow)))
            channels = stage.channels
        self.linear = nn.Linear(channels * math.prod(stages[-1].size), HIDDEN_DIM)
        self.mu = nn.Linear(HIDDEN_DIM, latent_dim)
        self.var: nn.Module = nn.Linear(HIDDEN_DIM, latent_dim)
        has_thumbnail = settled(config.thumbnail)
        self.thumbnail = Thumbnail(latent_dim, image_shape) if has_thumbnail else None
        self.components = None
        if starts_from_components(config):
            self.components = LinearEncoder(latent_dim, image_shape)
            # As in probabilistic PCA: how sure a latent is depends on the pixels' scale alone.
            self.var = ForAllImages(latent_dim)

    def forward(self, images: Tensor) -> Posterior:
        hidden = silu(self.linear(self.stages(images).flatten(start_dim=1)))
        log_variance = self.var(hidden).float().clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)
        mean = self.mu(hidden).float()
        for way in (self.thumbnail, self.components):
            if way is not None:
                mean = mean + way(images).float()
        return Posterior(mean, log_variance)


class Decoder(nn.Module):
    """Latents [B, L] to outputs [B, *image_shape]; the encoder's mirror."""

    def __init__(self, config: ModelConfig, image_shape: ImageShape) -> None:
        super().__init__()
        stages = feature_stages(config, image_shape)
        last = stages[-1]
        self._feature_shape = (last.channels, *last.size)
        self.linear = nn.Linear(settled(config.latent_dim), HIDDEN_DIM)
        self.linear2 = nn.Linear(HIDDEN_DIM, math.prod(self._feature_shape))
        self.stages = nn.Sequential()
        for stage, larger in pairwise(reversed(stages)):
            up = _up(stage, larger)
            rest = _rest_of(larger, is_normed=settled(config.block_norm))
            self.stages.append(nn.Sequential(up, *rest))
        self.stages.append(_to_pixels(config, stages[0], image_shape))
        self.components = None
        if starts_from_components(config):
            self.components = LinearDecoder(settled(config.latent_dim), image_shape)

    def forward(self, latents: Tensor) -> Tensor:
        hidden = silu(self.linear2(silu(self.linear(latents))))
        outputs: Tensor = self.stages(hidden.reshape(-1, *self._feature_shape))
        if self.components is not None:
            outputs = outputs + self.components(latents)
        return outputs


class Thumbnail(nn.Module):
    """Images [B, C, H, W] in [0, 1], made small, to a share [B, L] of the latents' means.

    Group norm takes the mean and the deviation of an image's features away, and with them how
    bright an image is, and how rich in contrast.
    """

    def __init__(self, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__()
        self._factor = factor_of(image_shape, THUMBNAIL_SIDE)
        num_values = math.prod(small_shape(image_shape, THUMBNAIL_SIDE))
        self.linear = nn.Linear(num_values, latent_dim, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        centred = (made_small(images, self._factor) - MIDDLE) / DEVIATION
        share: Tensor = self.linear(centred.flatten(start_dim=1))
        return share


class Shuffled(nn.Module):
    """A 3x3 convolution to four channels for each of the images', shuffled to twice the size.

    Sub-pixel convolution (Shi and others, 2016): each pixel is made from nine features of every
    channel, where a transposed convolution of stride 2 takes one to four. Gives images of
    `image_shape`, of the very size that was halved, be it odd or even.
    """

    def __init__(self, in_channels: int, image_shape: ImageShape) -> None:
        super().__init__()
        self._size = image_shape[1:]
        self.conv = nn.Conv2d(in_channels, 4 * image_shape[0], KERNEL_SIZE, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        height, width = self._size
        return pixel_shuffle(self.conv(features), 2)[..., :height, :width]


class ForAllImages(nn.Module):
    """A vector [L] for each row of features [B, D], the same for all of them."""

    def __init__(self, num_values: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_values))

    def forward(self, features: Tensor) -> Tensor:
        return self.bias.expand(features.shape[0], -1)


class ResidualBlock(nn.Module):
    """Group norm (Wu and He, 2018), SiLU and a 3x3 convolution, twice; at first the identity.

    The first convolution goes from `channels` to `inner`, the second back.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.conv = nn.Conv2d(channels, inner, KERNEL_SIZE, padding=1)
        self.norm2 = _norm(inner)
        self.conv2 = nn.Conv2d(inner, channels, KERNEL_SIZE, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.conv(silu(self.norm(features)))
        change: Tensor = self.conv2(silu(self.norm2(hidden)))
        return features + change


@torch.no_grad()
def start_from_images(encoder: Encoder, decoder: Decoder, pixels: PixelArray) -> float | None:
    """Have the two start as the principal components of `pixels` [N, C, H, W].

    Gives the variance of a pixel about their means; None where there is no linear way.
    """
    if encoder.components is None or decoder.components is None:
        return None
    start = start_as_components(encoder.components, decoder.components, pixels)
    for last in (encoder.mu, decoder.stages[-1]):
        for parameter in last.parameters():
            parameter.zero_()
    encoder.var.get_parameter("bias").copy_(start.log_variances)
    return start.noise_variance


def feature_stages(config: ModelConfig, image_shape: ImageShape) -> list[Stage]:
    """From the largest features, of half the images' size, to the smallest.

    Channels double with every halving up to `WIDENING` times the width; the resolutions that
    larger images have more have the width itself, so that cost grows no faster than pixels.
    """
    size = image_shape[1:]
    sizes: list[tuple[int, int]] = []
    while not sizes or min(size) > SMALLEST_SIDE:
        # A convolution of stride 2 with a border of one pixel halves them so.
        size = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        sizes.append(size)
    width = settled(config.width)
    from_last = reversed(range(len(sizes)))
    return [
        Stage(max(width, WIDENING * width >> halvings), each)
        for halvings, each in zip(from_last, sizes, strict=True)
    ]


def _up(stage: Stage, larger: Stage) -> nn.ConvTranspose2d:
    """To the very size that was halved, be it odd or even."""
    height, width = (new - (2 * old - 1) for new, old in zip(larger.size, stage.size, strict=True))
    return nn.ConvTranspose2d(
        stage.channels,
        larger.channels,
        KERNEL_SIZE,
        stride=2,
        padding=1,
        output_padding=(height, width),
    )


def _to_pixels(config: ModelConfig, stage: Stage, image_shape: ImageShape) -> nn.Module:
    if config.to_pixels == "transposed":
        return _up(stage, Stage(image_shape[0], image_shape[1:]))
    return Shuffled(stage.channels, image_shape)


def _rest_of(stage: Stage, *, is_narrow: bool = False, is_normed: bool = False) -> list[nn.Module]:
    """What follows the convolution that changes the resolution.

    A residual block that `is_narrow` has half as many channels inside. It leaves its sum as it is,
    unless it `is_normed`, as the trunk of a residual network is at its end (He and others, 2016).
    """
    normed = [_norm(stage.channels), nn.SiLU()]
    if min(stage.size) > LARGEST_BLOCK:
        return normed
    inner = stage.channels // 2 if is_narrow else stage.channels
    block = ResidualBlock(stage.channels, inner)
    return [*normed, block, *([_norm(stage.channels), nn.SiLU()] if is_normed else [])]


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, MAX_GROUPS), channels)
