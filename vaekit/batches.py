"""Sample order and noise as functions of (seed, epoch, step), and batches gathered by index.

Nothing here has state: the same arguments give the same numbers on every rank, at every world
size, and after every resume. Noise is drawn for the global batch; a rank takes its slice.
"""

from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Stream(IntEnum):
    """What a random number is for; streams of one seed are independent."""

    ORDER = 0
    LATENT = 1
    INPUT = 2
    EVALUATION = 3
    SAMPLES = 4
    WEIGHTS = 5


def epoch_order(seed: int, epoch: int, num_images: int) -> Tensor:
    """A permutation of the image indices, int64 [num_images], on the CPU."""
    generator = np.random.default_rng([seed, Stream.ORDER, epoch])
    return torch.from_numpy(generator.permutation(num_images))


def normal_noise(
    shape: tuple[int, ...], seed: int, stream: Stream, index: int, device: torch.device
) -> Tensor:
    """Standard normal float32 noise of `shape`; `index` is the step it is for."""
    generator = torch.Generator(device).manual_seed(stream_seed(seed, stream, index))
    return torch.randn(shape, generator=generator, device=device)


def stream_seed(seed: int, stream: Stream, index: int = 0) -> int:
    """A well-mixed 63-bit seed for PyTorch's generators."""
    return int(np.random.SeedSequence([seed, stream, index]).generate_state(1, np.uint64)[0] >> 1)


def rank_slice(count: int, rank: int, num_ranks: int) -> slice:
    """The contiguous share of `count` items that `rank` takes; shares differ by at most one."""
    return slice(count * rank // num_ranks, count * (rank + 1) // num_ranks)


def resident(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Images uint8 [N, C, H, W] on the device, from where batches are gathered."""
    return torch.from_numpy(pixels).to(device)


def gather_images(pixels: Tensor, indices: Tensor) -> Tensor:
    """Float32 images [B, C, H, W] in [0, 1], by index out of resident uint8 ones."""
    return as_floats(pixels.index_select(0, indices))


def as_floats(pixels: Tensor) -> Tensor:
    """uint8 pixels as float32 in [0, 1]."""
    return pixels.float().div_(255)


def as_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Images in [0, 1] as uint8 on the CPU: the inverse of `as_floats`."""
    pixels: NDArray[np.uint8] = images.mul(255).round().to(torch.uint8).cpu().numpy()
    return pixels
