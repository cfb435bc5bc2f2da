"""Sample order and noise as functions of (seed, epoch, step).

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


def epoch_order(seed: int, epoch: int, num_images: int) -> NDArray[np.int64]:
    """A permutation of the image indices, [num_images]."""
    return np.random.default_rng([seed, Stream.ORDER, epoch]).permutation(num_images)


def normal_noise(
    shape: tuple[int, ...], seed: int, stream: Stream, index: int, device: torch.device
) -> Tensor:
    """Standard normal float32 noise of `shape`; `index` is the step it is for."""
    noise = torch.empty(shape, device=device)
    draw_normal(noise, seed, stream, index)
    return noise


def draw_normal(noise: Tensor, seed: int, stream: Stream, index: int) -> None:
    """Overwrite `noise` with what `normal_noise` gives for its shape."""
    generator = torch.Generator(noise.device).manual_seed(stream_seed(seed, stream, index))
    noise.normal_(generator=generator)


def stream_seed(seed: int, stream: Stream, index: int = 0) -> int:
    """A well-mixed 63-bit seed for PyTorch's generators."""
    return int(np.random.SeedSequence([seed, stream, index]).generate_state(1, np.uint64)[0] >> 1)


def rank_slice(count: int, rank: int, num_ranks: int) -> slice:
    """The contiguous share of `count` items that `rank` takes; shares differ by at most one."""
    return slice(count * rank // num_ranks, count * (rank + 1) // num_ranks)
