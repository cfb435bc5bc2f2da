"""What a run is at a step, and how it goes into a checkpoint and comes back."""

import math
import time
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from vaekit.config import TrainConfig, parse_cadence, to_dict, trajectory_differences
from vaekit.errors import UserError
from vaekit.images.sets import Images
from vaekit.models.vae import VAE
from vaekit.runs.checkpoints import Checkpoint, load_newest_checkpoint
from vaekit.runs.folder import RunFolder
from vaekit.settings import from_dict
from vaekit.storage.tensors import difference
from vaekit.training.interruption import Interruption
from vaekit.training.losses import Losses
from vaekit.training.step import Stepper


@dataclass
class Training:
    """What changes from step to step, and what every step needs."""

    config: TrainConfig
    accelerator: Accelerator
    run: RunFolder
    images: Images
    images_sha256: str
    vae: VAE
    ema: VAE  # the average of the weights, to evaluate and to use
    stepper: Stepper
    interruption: Interruption
    step: int = 0  # how many are done
    epoch: int = 0  # the one under way, or the last
    losses: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))  # of its steps
    seconds: float = 0.0  # that its steps took
    metrics: list[dict[str, Any]] = field(default_factory=list)  # a row for each epoch recorded
    saved_at: float = field(default_factory=time.monotonic)  # when the last checkpoint was

    @property
    def steps_per_epoch(self) -> int:
        return len(self.images.train.pixels) // self.config.batch_size

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.epochs

    @property
    def steps_into_epoch(self) -> int:
        return self.step - max(0, self.epoch - 1) * self.steps_per_epoch

    def is_checkpoint_due(self, epoch: int | None = None) -> bool:
        """At the end of `epoch`, or within one."""
        cadence = parse_cadence("--checkpoint_every", str(self.config.checkpoint_every))
        return cadence.is_due(epoch, self.step, time.monotonic() - self.saved_at)

    def read_losses(self) -> Losses:
        """The mean over the epoch's steps so far, of all ranks, which must all ask.

        Raises `UserError` where a step was not finite; no weight has changed since.
        """
        self.losses = self.stepper.losses.read(self.steps_into_epoch, self.accelerator)
        failed = np.flatnonzero(~np.isfinite(self.losses).all(axis=1))
        if failed.size:
            stop_not_finite(self, self.step - len(self.losses) + int(failed[0]) + 1)
        return Losses(*self.losses.mean(axis=0).tolist())


def stop_not_finite(training: Training, step: int) -> NoReturn:
    """Raise the `UserError` for a loss that is no number."""
    epoch = math.ceil(step / training.steps_per_epoch)
    kept = max(training.run.checkpoints.glob("step-*"), default=None)
    raise UserError(
        f"the loss or its gradient is not finite at step {step} (epoch {epoch}), expected finite "
        f"ones; {f'{kept} is kept' if kept else 'there is no checkpoint yet'}; "
        f"try a lower --learning_rate in another --run folder"
    )


def checkpoint_tensors(training: Training) -> dict[str, Tensor]:
    """Weights, averaged weights, optimizer moments and losses under names of their own."""
    tensors = {f"model.{name}": t for name, t in training.vae.state_dict().items()}
    tensors |= {f"ema.{name}": t for name, t in training.ema.state_dict().items()}
    for index, moments in training.stepper.moments().items():
        tensors |= {f"optimizer.{index}.{name}": t for name, t in moments.items()}
    return tensors | {"losses": torch.from_numpy(training.losses)}


def make_checkpoint(training: Training) -> Checkpoint:
    """All that a resumed run needs to go on as if it had never stopped. All ranks must ask."""
    training.read_losses()
    facts = {
        **run_facts(training),
        "execution_path": training.stepper.path,
        "config": to_dict(training.config),
        "scaler": training.stepper.scaler_state(),
        "metrics": training.metrics,
        "seconds": training.seconds,
    }
    return Checkpoint(training.step, checkpoint_tensors(training), facts)


def run_facts(training: Training) -> dict[str, str]:
    """What the trajectory depends on beside the config; a resumed run must find it unchanged."""
    return {
        "mixed_precision": training.accelerator.mixed_precision,
        "images_sha256": training.images_sha256,
    }


def resume(training: Training) -> None:
    """Continue from the newest whole checkpoint, where there is one."""
    checkpoint = load_newest_checkpoint(training.run.checkpoints)
    if checkpoint is None:
        return
    require_same_run(training, checkpoint)
    tensors = checkpoint.tensors
    expected = checkpoint_tensors(training) | {"losses": tensors["losses"]}
    if fault := difference(tensors, expected):
        raise UserError(
            f"{training.run.checkpoints}: the checkpoint of step {checkpoint.step} is not one of "
            f"this model ({fault}); give another --run folder"
        )
    training.vae.load_state_dict(_under("model.", tensors))
    training.ema.load_state_dict(_under("ema.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _under("optimizer.", tensors).items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = tensor
    training.stepper.load(moments, checkpoint.facts["scaler"])
    training.step = checkpoint.step
    training.losses = tensors["losses"].numpy()
    training.seconds = checkpoint.facts["seconds"]
    training.metrics = checkpoint.facts["metrics"]


def require_same_run(training: Training, checkpoint: Checkpoint) -> None:
    """Raise `UserError` where going on from `checkpoint` would give another trajectory."""
    if checkpoint.facts["images_sha256"] != training.images_sha256:
        raise UserError(
            f"--data.root {training.config.data.root}: other images, labels or classes than "
            f"{training.run.path} was started on; put those back, or give another --run folder"
        )
    for name, value in run_facts(training).items():
        if checkpoint.facts[name] != value:
            raise UserError(
                f"{training.run.path}: its checkpoint was made with {name} "
                f"{checkpoint.facts[name]}, this start has {value}; resume it the way it was "
                f"started, or give another --run folder"
            )
    recorded = from_dict(TrainConfig, checkpoint.facts["config"])
    if differences := trajectory_differences(recorded, training.config):
        raise UserError(
            f"{training.run.path}: its checkpoint was made with other settings "
            f"({'; '.join(differences)}); put its config.yaml back, or give another --run folder"
        )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
