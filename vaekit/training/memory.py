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
    weights: int  # with their averages, gradients and moments
    activations: int  # of a step, or of a batch of the evaluation
    images: int  # that a GPU keeps; those of the machine are loaded by then, or mapped

    @property
    def peak(self) -> int:
        return int(_OVERHEAD * self.weights) + self.activations + self.images


def estimate(
    config: TrainConfig, image_shape: ImageShape, num_processes: int, resident: int = 0
) -> Memory:
    """Of a process that trains on images of this shape (channels, height, width).

    `resident` are the bytes of images that a GPU keeps. Nothing that it depends on may be left
    `auto`.
    """
    with torch.device("meta"):  # takes no memory, however large the model
        vae = VAE(config.model, image_shape)
        of_step, of_evaluation = (
            _outputs_of(vae, num_samples) for num_samples in (config.num_samples, 1)
        )
    count = num_parameters(vae)
    num_kept = config.keep == "best"  # one average more
    # Where it still follows from the images, at least one image a process.
    batch_size = num_processes if config.batch_size == "auto" else config.batch_size
    step = batch_size // num_processes * sum(of_step) * _OF_AN_ACTIVATION
    # Without gradients a layer's input and output are all that is held.
    evaluation = EVALUATED * max(
        map(sum, zip(of_evaluation, [0, *of_evaluation], strict=False)), default=0
    )
    return Memory(
        count,
        checkpoint=count * (_IN_A_CHECKPOINT + num_kept) * _FLOAT,
        weights=count * (_OF_A_PARAMETER + num_kept) * _FLOAT,
        activations=max(step, evaluation) * _FLOAT,
        images=resident,
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
        place = "the GPU" if device.type == "cuda" else "this machine"
        raise UserError(
            f"--data.image_size {config.data.image_size}: {takes}, and {place} has "
            f"{_amount(free)} free; give a smaller {smaller}"
        )
    return takes


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


def _outputs_of(vae: VAE, num_samples: int) -> list[int]:
    """How many numbers each layer gives for an image, as a pass finds them."""
    sizes: list[int] = []

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel())

    layers = [module for module in vae.modules() if not list(module.children())]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    vae(torch.empty(1, *vae.image_shape), torch.empty(num_samples, 1, vae.latent_dim))
    for hook in hooks:
        hook.remove()
    return sizes


def _amount(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.0f} MB"
