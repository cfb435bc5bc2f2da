"""Sample order and noise as functions of (seed, epoch, step).

Nothing here has state: the same arguments give the same numbers on every rank, at every world
size, and after every resume. Noise is drawn for the global batch; a rank takes its slice.
"""

from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS_AT_ONCE = 2**16
FEWEST_ROWS = 16


class Stream(IntEnum):
    """What a random number is for; streams of one seed are independent."""

    ORDER = 0
    LATENT = 1
    INPUT = 2
    EVALUATION = 3
    SAMPLES = 4
    WEIGHTS = 5
    AUGMENTATION = 6


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


class NormalRows:
    """The rows [count, width] of `normal_noise` of index 0, taken in ascending order.

    On a CPU, where a generator goes on as if it had never stopped, no more than a block of them
    is held, however many there are.
    """

    def __init__(
        self, count: int, width: int, seed: int, stream: Stream, device: torch.device
    ) -> None:
        self._count, self._width, self._device = count, width, device
        self._block = ROWS_AT_ONCE if device.type == "cpu" else count
        self._generator = torch.Generator(device).manual_seed(stream_seed(seed, stream, 0))
        self._first = 0  # of the rows that are held
        self._held = torch.empty(0, width, device=device)

    def take(self, rows: slice) -> Tensor:
        """Rows, none of which is before the first ones that were taken last."""
        while self._first + len(self._held) < rows.stop:
            start = self._first + len(self._held)
            # Fewer values than 16 at the end would be drawn in another way.
            is_last = self._count - start < self._block + FEWEST_ROWS
            size = self._count - start if is_last else self._block
            block = torch.empty(size, self._width, device=self._device)
            block.normal_(generator=self._generator)
            past = min(max(rows.start - self._first, 0), len(self._held))
            self._held = torch.cat([self._held[past:], block])
            self._first += past
        return self._held[rows.start - self._first : rows.stop - self._first]


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
