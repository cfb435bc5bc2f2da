"""What a run is at a step, in memory, and how that goes into a checkpoint and comes back."""

import math
import time
from copy import deepcopy
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from vaekit.config import TrainConfig, parse_cadence, settled, to_dict
from vaekit.errors import UserError
from vaekit.images.image_set import Images
from vaekit.models.vae import VAE
from vaekit.training.feeds import make_feed
from vaekit.training.losses import Losses
from vaekit.training.noise import Stream, stream_seed
from vaekit.training.settle import settle
from vaekit.training.step import Stepper


class Checkpoint(NamedTuple):
    """All that a run needs to go on as if it had never stopped."""

    step: int  # how many are done
    tensors: dict[str, Tensor]  # the run's own, which its next step changes
    metadata: dict[str, Any]  # JSON values


class NotFiniteError(UserError):
    """The loss of a step, or a gradient, is no number; no weight has changed since."""

    def __init__(self, step: int, epoch: int) -> None:
        self.fault = (
            f"the loss or its gradient is not finite at step {step} (epoch {epoch}), expected "
            f"finite ones"
        )
        super().__init__(f"{self.fault}; try a lower learning rate")


class Training:
    """A run in memory: what every step needs, and what changes from step to step.

    Making one changes nothing of the process, its random numbers included. The weights are those
    that `config.seed` gives, and what `config` leaves `auto` follows from the images, uint8
    [N, C, H, W], at least one batch to train on; the ranks of `accelerator` divide a batch.
    """

    def __init__(self, config: TrainConfig, images: Images, accelerator: Accelerator) -> None:
        config = settle(config, images)
        self.config, self.images, self.accelerator = config, images, accelerator
        self.steps_per_epoch = len(images.train.pixels) // settled(config.batch_size)
        self.vae = initial_vae(config, images.shape)
        self.vae.start_from(images.train.pixels)
        # The average of the weights, to evaluate and to use.
        self.ema = deepcopy(self.vae).requires_grad_(False).eval().to(accelerator.device)
        # The average to use: that of the best epoch so far, or the same as of now.
        self.kept = deepcopy(self.ema) if config.keep == "best" else self.ema
        self.feed = make_feed(images.train.pixels, config, accelerator)
        self.stepper = Stepper(
            config, accelerator, self.vae, self.ema, self.feed, self.steps_per_epoch
        )
        self.step = 0  # how many are done
        self.epoch = 0  # the one under way, or the last
        self.losses: NDArray[np.float64] = np.zeros((0, 2))  # of the steps of that epoch
        self.seconds = 0.0  # that those steps took
        self.metrics: list[dict[str, Any]] = []  # a row for each epoch that is over
        self.saved_at = time.monotonic()  # when the last checkpoint was, or the start
        self.saving_seconds = 0.0  # that it took whoever drives the loop

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * settled(self.config.epochs)

    @property
    def steps_into_epoch(self) -> int:
        return self.step - max(0, self.epoch - 1) * self.steps_per_epoch

    @cached_property
    def images_sha256(self) -> str:
        return self.images.sha256()

    def is_checkpoint_due(self, epoch: int | None = None) -> bool:
        """At the end of `epoch`, or within one."""
        cadence = parse_cadence(str(self.config.checkpoint_every))
        seconds_passed = time.monotonic() - self.saved_at
        return cadence.is_due(epoch, self.step, seconds_passed, self.saving_seconds)

    def saved(self, handed_out_at: float) -> None:
        """Take down that a checkpoint is written, and how long that took since then."""
        self.saved_at = time.monotonic()
        self.saving_seconds = self.saved_at - handed_out_at

    def read_losses(self) -> Losses:
        """The mean over the epoch's steps so far, of all ranks, which must all ask.

        Raises `NotFiniteError` where a step was not finite; no weight has changed since.
        """
        self.losses = self.stepper.losses.read(self.steps_into_epoch, self.accelerator)
        failed = np.flatnonzero(~np.isfinite(self.losses).all(axis=1))
        if failed.size:
            stop_not_finite(self, self.step - len(self.losses) + int(failed[0]) + 1)
        return Losses(*self.losses.mean(axis=0).tolist())

    def tensors(self) -> dict[str, Tensor]:
        """Weights, averaged and kept ones, optimizer moments and losses by names of their own."""
        tensors = {f"model.{name}": t for name, t in self.vae.state_dict().items()}
        tensors |= {f"ema.{name}": t for name, t in self.ema.state_dict().items()}
        if self.kept is not self.ema:
            tensors |= {f"kept.{name}": t for name, t in self.kept.state_dict().items()}
        for index, moments in self.stepper.updater.moments().items():
            tensors |= {f"optimizer.{index}.{name}": t for name, t in moments.items()}
        return tensors | {"losses": torch.from_numpy(self.losses)}

    def requirements(self) -> dict[str, str]:
        """What the trajectory depends on beside the config; a resumed run must find it again."""
        return {
            "mixed_precision": self.accelerator.mixed_precision,
            "images_sha256": self.images_sha256,
        }

    def checkpoint(self) -> Checkpoint:
        """The run after the step that is done. All ranks must ask.

        Raises `NotFiniteError` where a step of this epoch was not finite.
        """
        if self.epoch > 0:
            self.read_losses()
        metadata = {
            **self.requirements(),
            "execution_path": self.stepper.path,
            "config": to_dict(self.config),
            "scaler": self.stepper.updater.scaler_state(),
            "metrics": list(self.metrics),
            "seconds": self.seconds,
        }
        return Checkpoint(self.step, self.tensors(), metadata)

    def start_from(self, vae: VAE) -> None:
        """Take over the weights of another VAE of this model, before any step."""
        for own in (self.vae, self.ema, self.kept):
            own.load_state_dict(vae.state_dict())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back, or on, to a checkpoint of this config and these images, before any step."""
        tensors, metadata = checkpoint.tensors, checkpoint.metadata
        self.vae.load_state_dict(_under("model.", tensors))
        self.ema.load_state_dict(_under("ema.", tensors))
        if self.kept is not self.ema:
            self.kept.load_state_dict(_under("kept.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in _under("optimizer.", tensors).items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = tensor
        self.stepper.updater.load(moments, metadata["scaler"])
        self.step = checkpoint.step
        self.losses = tensors["losses"].numpy()
        self.seconds, self.metrics = metadata["seconds"], list(metadata["metrics"])


def initial_vae(config: TrainConfig, image_shape: tuple[int, int, int]) -> VAE:
    """The model as it is before the first step, on the CPU; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(config.seed, Stream.WEIGHTS))
        return VAE(config.model, image_shape)


def kept_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of metrics of the epoch whose weights are kept, of one row or more."""
    row: dict[str, Any] = rows[rows[-1].get("kept_epoch", len(rows) - 1)]
    return row


def stop_not_finite(training: Training, step: int) -> NoReturn:
    """Raise the error for a loss that is no number."""
    raise NotFiniteError(step, math.ceil(step / training.steps_per_epoch))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
