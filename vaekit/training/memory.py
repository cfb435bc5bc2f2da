"""How much memory a run takes, before anything of it is built, and whether there is as much."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch import Tensor, nn

from vaekit.config import TrainConfig
from vaekit.errors import UserError
from vaekit.images.pixels import ImageShape
from vaekit.models.vae import VAE, num_parameters
from vaekit.training.elbo import BATCH_SIZE as EVALUATED

_FLOAT = 4  # bytes
_OF_A_PARAMETER = 5  # floats: weight, average, gradient, two moments of Adam
_OVERHEAD = 1.15  # measured: 3.6 GB with 0.5 GB of libraries, for 118 million parameters (CPU)
_IN_A_CHECKPOINT = 4  # the same without the gradient
_OF_AN_ACTIVATION = 2  # floats: what the forward pass keeps, and its gradient
_LIMITS = (  # of a control group, as containers have: version 2, version 1
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


class Memory(NamedTuple):
    """An estimate in bytes, beyond what a process takes that has loaded its libraries."""

    num_parameters: int
    checkpoint: int
    weights: int  # with their average, gradients and moments
    activations: int  # of a step, or of a batch of the evaluation

    @property
    def peak(self) -> int:
        return int(_OVERHEAD * self.weights) + self.activations


def estimate(config: TrainConfig, image_shape: ImageShape, num_processes: int) -> Memory:
    """Of a process that trains on images of this shape (channels, height, width).

    Nothing that it depends on may be left `auto`.
    """
    with torch.device("meta"):  # takes no memory, however large the model
        vae = VAE(config.model, image_shape)
        outputs = _Outputs(vae)
        vae(torch.empty(1, *image_shape), torch.empty(1, vae.latent_dim))
    count = num_parameters(vae)
    # Where it still follows from the images, at least one image a process.
    batch_size = num_processes if config.batch_size == "auto" else config.batch_size
    step = batch_size // num_processes * sum(outputs.sizes) * _OF_AN_ACTIVATION
    # Without gradients a layer's input and output are all that is held.
    evaluation = EVALUATED * max(
        map(sum, zip(outputs.sizes, [0, *outputs.sizes], strict=False)), default=0
    )
    return Memory(
        count,
        checkpoint=count * _IN_A_CHECKPOINT * _FLOAT,
        weights=count * _OF_A_PARAMETER * _FLOAT,
        activations=max(step, evaluation) * _FLOAT,
    )


def require_memory(memory: Memory, device: torch.device, config: TrainConfig) -> str:
    """A line that says what the run takes. Raises `UserError` where it can't fit."""
    free = available(device)
    num_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device.type == "cpu" else 1
    needed = memory.peak * num_local
    takes = (
        f"{memory.num_parameters:,} parameters, {_amount(memory.checkpoint)} a checkpoint, "
        f"about {_amount(needed)} of memory"
    )
    if needed > free:
        of_reference = isinstance(config.model.conv_channels, tuple)
        weights = (
            "--model.hidden_dims or --model.conv_channels" if of_reference else "--model.width"
        )
        weigh = f"--data.image_size, {weights}"
        smaller = weigh if memory.weights > memory.activations else f"--batch_size, {weigh}"
        raise UserError(
            f"--data.image_size {config.data.image_size}: {takes}, and {_name(device)} has "
            f"{_amount(free)} free; give a smaller {smaller}"
        )
    return takes


def _name(device: torch.device) -> str:
    return "the GPU" if device.type == "cuda" else "this machine"


def available(device: torch.device) -> int:
    """Bytes that may still be taken: of the device, the machine, the container, the process."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available + psutil.swap_memory().free)
    return min([free, *_within_limits()])


def _within_limits(groups: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What control groups leave; their page cache gives way."""
    left = []
    for limit, usage, statistics in _LIMITS:
        with suppress(OSError, ValueError):  # none, or "max"
            lines = (groups / statistics).read_text().splitlines()
            cached = {name: int(value) for name, value in map(str.split, lines)}
            used = int((groups / usage).read_text()) - cached.get("inactive_file", 0)
            used -= cached.get("active_file", 0)
            left.append(int((groups / limit).read_text()) - used)
    return left


class _Outputs:
    """How many numbers each layer of a model gives for an image, as a pass finds them."""

    def __init__(self, model: nn.Module) -> None:
        self.sizes: list[int] = []
        for module in model.modules():
            if not list(module.children()):
                module.register_forward_hook(self._note)

    def _note(self, _module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            self.sizes.append(output.numel())


def _amount(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.0f} MB"
