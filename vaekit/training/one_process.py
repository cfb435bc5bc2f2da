"""What a training in memory needs of Accelerate, without what that keeps for a whole process."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class OneProcess:
    """One rank in float32 on one device.

    An `Accelerator` settles precision and ranks for everything that comes later in its process,
    which is for commands: a program that trains an estimator may want one of its own.
    """

    mixed_precision = "no"
    num_processes, process_index = 1, 0
    is_main_process = is_local_main_process = True
    scaler = None

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare(self, module: nn.Module) -> nn.Module:
        return module.to(self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor
