"""Convolutions from and to images, whose few channels a GPU pads to as many as it wants.

cuDNN has no fast kernel for the weights' gradient of one to seven channels: on an H200 the two of
the reference's architecture took 240 of the 1,430 microseconds of a step (docs/performance.md).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, pad

WANTED = 8  # channels, for the matrix units


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` of one group with a border of zeros, or none."""

    def forward(self, images: Tensor) -> Tensor:
        if images.is_cuda and self.in_channels < WANTED:
            return padded_conv(self, images)
        return super().forward(images)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` of stride 1 without a border."""

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        if features.is_cuda and self.out_channels < WANTED:
            return padded_transpose(self, features)
        return super().forward(features, output_size)


def padded_conv(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """What `conv` gives, with channels of zeros beside those of `images` [B, C, H, W]."""
    channels = _lacking(conv.in_channels)
    images = pad(images, channels).contiguous(memory_format=torch.channels_last)
    weight = pad(conv.weight, channels)
    return conv2d(images, weight, conv.bias, conv.stride, conv.padding)


def padded_transpose(conv: nn.ConvTranspose2d, features: Tensor) -> Tensor:
    """What `conv` gives, without the channels of zeros that are made beside its own."""
    assert conv.bias is not None
    weight = pad(conv.weight, _lacking(conv.out_channels))
    images = conv_transpose2d(features, weight)
    return images[:, : conv.out_channels] + conv.bias[:, None, None]


def _lacking(num_channels: int) -> list[int]:
    """As `pad` takes it for dimensions [.., C, H, W]."""
    return [0, 0, 0, 0, 0, WANTED - num_channels]
