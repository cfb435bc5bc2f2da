"""How tensors lie in a GPU's memory, where a launch costs as much as a small tensor's work."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm


def lay_out(modules: Iterable[nn.Module], device: torch.device) -> None:
    """Have convolutions find their channels side by side on a GPU, as its matrix units want them.

    A CPU is no faster by it (docs/performance.md).
    """
    if device.type == "cuda":
        for module in modules:
            module.to(memory_format=torch.channels_last)


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """A `value` of the parameter's shape in its layout; one of another shape as it is."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def are_finite(gradients: Sequence[Tensor]) -> Tensor:
    """Whether all are, a bool on their device, which nobody waits for."""
    if gradients[0].is_cuda:
        return get_total_norm(gradients, norm_type=1.0).isfinite()  # some launches for all of them
    # On a CPU a sum of each is 3 to 10 times as fast.
    return torch.stack([gradient.sum() for gradient in gradients]).sum().isfinite()
