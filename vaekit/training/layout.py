"""How tensors lie in memory."""

from collections.abc import Iterable

import torch
from torch import nn


def lay_out(modules: Iterable[nn.Module], device: torch.device) -> None:
    """Have convolutions find their channels side by side on a GPU, as its matrix units want them.

    A CPU is no faster by it (docs/performance.md).
    """
    if device.type == "cuda":
        for module in modules:
            module.to(memory_format=torch.channels_last)
