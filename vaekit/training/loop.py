"""Steps and epochs in memory; what comes of them is handed out to whoever drives the loop."""

import math
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, NamedTuple

from vaekit.config import settled
from vaekit.images.image_set import ImageSet
from vaekit.models.vae import VAE
from vaekit.training.elbo import evaluate
from vaekit.training.interruption import Interrupted
from vaekit.training.losses import Losses
from vaekit.training.noise import epoch_order
from vaekit.training.ranks import agree
from vaekit.training.state import Checkpoint, Training, kept_row, stop_not_finite
from vaekit.training.step import learning_rate

REPORT_STEPS = 20  # between two looks at the loss


class Request(IntEnum):
    """What a rank asks for between two steps; the ranks agree on the greatest.

    128 and more asks to stop, with that exit code.
    """

    GO_ON = 0
    READ_LOSSES = 1
    CHECKPOINT = 2
    STOP = 128


class Advanced(NamedTuple):
    """Some steps are done."""

    epoch: int
    num_steps: int  # since the event before
    losses: Losses | None  # this rank's latest; None where a GPU is still to say them


class CheckpointDue(NamedTuple):
    """Within an epoch; to be written before the loop goes on."""

    checkpoint: Checkpoint


class EpochDone(NamedTuple):
    """An epoch and its evaluation are over; epoch 0 is before training."""

    metrics: dict[str, Any]  # the newest row of `Training.metrics`
    checkpoint: Checkpoint | None  # where one is due, to be written before the loop goes on


Event = Advanced | CheckpointDue | EpochDone


def run(training: Training, exit_code: Callable[[], int] = lambda: 0) -> Iterator[Event]:
    """Train from where `training` is to the end of its last epoch.

    Between two steps and two batches of an evaluation, `exit_code` says whether to stop: with 128
    and more, a shell's code for a signal, or not, with 0. Raises `Interrupted` where it says so on
    any rank, with all that was done in `training`, and `NotFiniteError` where a step was not
    finite. Every rank sees the same, so all stop.
    """
    epochs = settled(training.config.epochs)
    for epoch in range(len(training.metrics), epochs + 1):
        if epoch > 0:
            yield from train_epoch(training, epoch, exit_code)
        training.metrics.append(evaluate_epoch(training, epoch, exit_code))
        is_due = epoch == epochs or training.is_checkpoint_due(epoch)
        if epoch == 0:  # what the seed gives is made again; weights of elsewhere may be gone
            is_due = training.config.init_from is not None
        handed_out_at = time.monotonic()
        yield EpochDone(training.metrics[-1], training.checkpoint() if is_due else None)
        if is_due:
            training.saved(handed_out_at)


def train_epoch(
    training: Training, epoch: int, exit_code: Callable[[], int] = lambda: 0
) -> Iterator[Advanced | CheckpointDue]:
    """What is left of a pass over the training set; raises as `run` does."""
    start_epoch(training, epoch)
    started = time.monotonic() - training.seconds
    reported = training.step
    while training.steps_into_epoch < training.steps_per_epoch:
        training.stepper.advance(training.step)
        training.step += 1
        training.seconds = time.monotonic() - started
        is_last = training.steps_into_epoch == training.steps_per_epoch
        is_due = not is_last and training.is_checkpoint_due()
        request = Request.CHECKPOINT if is_due else Request.GO_ON
        if training.step - reported == REPORT_STEPS or is_last:
            latest = training.stepper.losses.latest(training.steps_into_epoch)
            if latest is not None and not math.isfinite(latest.loss):
                request = Request.READ_LOSSES
            yield Advanced(epoch, training.step - reported, latest)
            reported = training.step
        agreed = agree_between_steps(training, request, exit_code)
        if agreed == Request.READ_LOSSES:
            training.read_losses()
        elif agreed == Request.CHECKPOINT:
            handed_out_at = time.monotonic()
            yield CheckpointDue(training.checkpoint())
            training.saved(handed_out_at)
    training.read_losses()
    training.seconds = time.monotonic() - started


def start_epoch(training: Training, epoch: int) -> None:
    """Go into `epoch`, or on in it where `training` is within it."""
    training.epoch = epoch
    if training.steps_into_epoch == 0:
        training.losses, training.seconds = training.losses[:0], 0.0
    order = epoch_order(training.config.seed, epoch, len(training.images.train.pixels))
    training.stepper.start_epoch(order, training.steps_into_epoch, training.losses)
    training.stepper.passes.train()


def agree_between_steps(training: Training, request: Request, exit_code: Callable[[], int]) -> int:
    """What the ranks do next; all come here at the same points, each with its own request.

    Raises `Interrupted` where one of them was asked to stop.
    """
    agreed = agree(training.accelerator, max(request, exit_code()))
    if agreed >= Request.STOP:
        raise Interrupted(agreed)
    return agreed


def evaluate_epoch(training: Training, epoch: int, exit_code: Callable[[], int]) -> dict[str, Any]:
    """The row of metrics of an epoch whose steps are done; the best weights are kept."""
    config = training.config
    losses = training.read_losses() if epoch > 0 else None
    test_losses = evaluate_weights(training, training.ema, training.images.test, exit_code)
    if not math.isfinite(test_losses.loss):
        stop_not_finite(training, training.step)
    validation = validate(training, epoch, exit_code)
    num_images = training.steps_per_epoch * settled(config.batch_size)
    row: dict[str, Any] = {
        "epoch": epoch,
        "step": training.step,
        **_prefixed("train_", losses),
        **_prefixed("test_", test_losses),
        **validation,
        "learning_rate": learning_rate(config, training.step, training.total_steps),
        "images_per_second": num_images / training.seconds if losses else None,
        "seconds": training.seconds if losses else None,
    }
    if epoch == settled(config.epochs):
        # The mean over an epoch is of moving weights, and of noisy or augmented inputs.
        final = evaluate_weights(training, training.kept, training.images.train, exit_code)
        row |= _prefixed("final_train_", final)
    return row


def validate(training: Training, epoch: int, exit_code: Callable[[], int]) -> dict[str, Any]:
    """What a row says of the validation set, and of the epoch that is kept; {} without one."""
    image_set = training.images.validation
    if image_set is None:
        return {}
    losses = evaluate_weights(training, training.ema, image_set, exit_code)
    if not math.isfinite(losses.loss):
        stop_not_finite(training, training.step)
    row: dict[str, Any] = _prefixed("validation_", losses)
    if training.config.keep == "best":
        kept = kept_row(training.metrics) if epoch > 1 else None
        is_best = kept is None or losses.loss < kept["validation_loss"]
        if is_best:
            training.kept.load_state_dict(training.ema.state_dict())
        row["kept_epoch"] = epoch if is_best or kept is None else kept["epoch"]
    return row


def evaluate_weights(
    training: Training, weights: VAE, image_set: ImageSet, exit_code: Callable[[], int]
) -> Losses:
    """The loss of `weights`; somebody may ask to stop in between."""

    def stop_if_asked() -> None:
        agree_between_steps(training, Request.GO_ON, exit_code)

    return evaluate(
        weights,
        image_set.pixels,
        training.config.seed,
        training.accelerator,
        between_batches=stop_if_asked,
    )


def _prefixed(prefix: str, losses: Losses | None) -> dict[str, float | None]:
    return {
        prefix + name: None if losses is None else getattr(losses, name)
        for name in ("loss", "reconstruction", "kl")
    }
