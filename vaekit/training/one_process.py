"""What a training in memory needs of Accelerate, without what that keeps for a whole process."""

import torch
from torch import Tensor, nn


class OneProcess:
    """One rank in float32 on one device.

    An `Accelerator` settles precision and ranks for everything that comes later in its process,
    which is for commands: a program that trains an estimator may want one of its own.
    """

    mixed_precision = "no"
    num_processes, process_index = 1, 0
    scaler = None

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare(self, module: nn.Module) -> nn.Module:
        return module.to(self.device)

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor
