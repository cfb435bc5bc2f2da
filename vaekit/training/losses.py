"""The losses of an epoch's steps, kept on the device until somebody asks."""

from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor


class Losses(NamedTuple):
    """Means over images, in nats per image."""

    reconstruction: float
    kl: float

    @property
    def loss(self) -> float:
        return self.reconstruction + self.kl


class EpochLosses:
    """Reconstruction and KL of every step of an epoch, one row [2] a step.

    A step writes its row without anybody waiting for it. A row that is not finite marks the step
    that failed.
    """

    def __init__(self, num_steps: int, device: torch.device) -> None:
        self._rows = torch.zeros(num_steps, 2, device=device)
        self._settled = np.zeros((0, 2))  # the global rows that were read already
        self._under_way: _Transfer | None = None

    def restart(self, settled: NDArray[np.float64]) -> None:
        """Begin an epoch, or go on in one whose first rows [n, 2] an earlier start has read."""
        self._settled = settled
        self._under_way = None

    def write(self, batch: Tensor, row: Tensor) -> None:
        """The row [2] of the step at `batch`, int64 [1]; both are on the device."""
        self._rows.index_copy_(0, batch, row[None])

    def latest(self, num_done: int) -> Losses | None:
        """This rank's mean over the steps since the last read, for people to look at.

        It never waits for a GPU: there it is the one that the call before asked for, or None where
        even that is still under way.
        """
        mean = self._rows[len(self._settled) : num_done].mean(dim=0)
        if mean.device.type != "cuda":
            return Losses(*mean.tolist())
        before, self._under_way = self._under_way, _Transfer(mean)
        return None if before is None else before.losses()

    def read(self, num_done: int, accelerator: Accelerator) -> NDArray[np.float64]:
        """The global rows [num_done, 2] of the epoch's steps so far. All ranks must ask."""
        if num_done > len(self._settled):
            own = self._rows[len(self._settled) : num_done]
            rows = accelerator.reduce(own, reduction="mean").cpu().double().numpy()
            self._settled = np.concatenate([self._settled, rows])
        return self._settled


class _Transfer:
    """Losses on their way from a GPU."""

    def __init__(self, mean: Tensor) -> None:
        self._mean = torch.empty(2, pin_memory=True)
        self._mean.copy_(mean, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record()

    def losses(self) -> Losses | None:
        return Losses(*self._mean.tolist()) if self._arrived.query() else None
