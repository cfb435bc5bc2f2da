"""The convolutions of the strided architecture, against the same sums written otherwise.

They are most of a training step on a CPU, ours as well as a peer's.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, pad, pixel_shuffle, unfold

from bench.conftest import Compete
from bench.interleaved import Contest

# Shapes in comments: B images, C channels in, D channels out, H height, W width.

BATCH_SIZE = 128
ROUNDS = 12

Convolve = Callable[[Tensor, Tensor], Tensor]


class Way(NamedTuple):
    """The same convolution, forward and backward: vaekit's, and another way to write it."""

    name: str
    features: tuple[int, int, int]  # C, H, W
    weights: tuple[int, ...]
    ours: Convolve
    theirs: Convolve


def plain(features: Tensor, weights: Tensor) -> Tensor:
    return conv2d(features, weights, padding=1)


def as_one_product(features: Tensor, weights: Tensor) -> Tensor:
    """Of all patches [B, 9 C, H W]."""
    images, _, height, width = features.shape
    products = weights.flatten(start_dim=1) @ unfold(features, 3, padding=1)
    return products.reshape(images, -1, height, width)


def channels_last(features: Tensor, weights: Tensor) -> Tensor:
    return plain(features.contiguous(memory_format=torch.channels_last), weights).contiguous()


def of_more_channels(features: Tensor, weights: Tensor) -> Tensor:
    """Sixteen, as many as fill a register, of which those beyond `weights` are left out."""
    num_channels = len(weights)
    return plain(features, pad(weights, (0, 0, 0, 0, 0, 0, 0, 16 - num_channels)))[:, :num_channels]


def halving(features: Tensor, weights: Tensor) -> Tensor:
    return conv2d(features, weights, stride=2, padding=1)


def halving_of_unshuffled(features: Tensor, weights: Tensor) -> Tensor:
    """A 2x2 convolution of four times the channels; `features` have even sides."""
    shuffled = torch.pixel_unshuffle(pad(features, (2, 0, 2, 0)), 2)
    taps = pad(weights, (1, 0, 1, 0)).unflatten(3, (2, 2)).unflatten(2, (2, 2))
    kernels = taps.permute(0, 1, 3, 5, 2, 4).flatten(start_dim=1, end_dim=3)
    return conv2d(shuffled, kernels)


def doubling(features: Tensor, weights: Tensor) -> Tensor:
    return conv_transpose2d(features, weights, stride=2, padding=1, output_padding=1)


def doubling_shuffled(features: Tensor, weights: Tensor) -> Tensor:
    """A 2x2 convolution to four times the channels, as pixels of twice the size."""
    # Of a row or column 2 i sees weight 1 of i alone, 2 i + 1 sees 2 of i and 0 of i + 1.
    taps = torch.tensor([[1, 3], [2, 0]])
    kernels = pad(weights, (0, 1, 0, 1))[:, :, taps][..., taps]  # [C, D, 2, 2, 2, 2]
    kernels = kernels.permute(1, 2, 4, 0, 3, 5).flatten(end_dim=2)
    return pixel_shuffle(conv2d(pad(features, (0, 1, 0, 1)), kernels), 2)


WAYS = [
    Way("one product", (64, 7, 7), (64, 64, 3, 3), plain, as_one_product),
    Way("channels_last", (64, 7, 7), (64, 64, 3, 3), plain, channels_last),
    Way("one product", (128, 4, 4), (128, 128, 3, 3), plain, as_one_product),
    Way("channels_last", (128, 4, 4), (128, 128, 3, 3), plain, channels_last),
    Way("sixteen channels", (32, 14, 14), (4, 32, 3, 3), plain, of_more_channels),
    Way("unshuffled", (32, 14, 14), (64, 32, 3, 3), halving, halving_of_unshuffled),
    Way("shuffled", (64, 7, 7), (64, 32, 3, 3), doubling, doubling_shuffled),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.name} {way.features}")
def test_convolution(compete: Compete, threads: int, way: Way) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(BATCH_SIZE, *way.features, generator=generator)
    weights = torch.randn(way.weights, generator=generator)
    compete(
        Contest(
            work=f"{way.ours.__name__} convolution, {' x '.join(map(str, way.weights))}",
            ours=lambda: forward_and_backward(way.ours, features, weights),
            peer=way.name,
            theirs=lambda: forward_and_backward(way.theirs, features, weights),
            agree=all_close,
            rounds=ROUNDS,
        )
    )


def forward_and_backward(convolve: Convolve, features: Tensor, weights: Tensor) -> list[Tensor]:
    """The features that come of it, and the gradients of their squares' sum."""
    features, weights = features.requires_grad_(), weights.requires_grad_()
    results = convolve(features, weights)
    gradients = torch.autograd.grad(results, (features, weights), results)
    return [results, *gradients]


def all_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, atol=1e-2, rtol=1e-3)
