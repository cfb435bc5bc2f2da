"""Training: the entry of `accelerate launch vaekit/train.py`."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator

from vaekit.arguments import parse
from vaekit.config import TrainConfig, flatten, to_dict, write_config
from vaekit.errors import UserError, say, user_errors_in_one_line
from vaekit.images.pixels import as_floats, as_pixels
from vaekit.images.sets import Images, ImageSet, load_images
from vaekit.models.vae import VAE, feature_shape, num_parameters
from vaekit.progress import Progress
from vaekit.runs.checkpoints import save_checkpoint
from vaekit.runs.environment import changes_since, describe_environment
from vaekit.runs.folder import RunFolder
from vaekit.runs.resume import (
    Training,
    checkpoint_tensors,
    make_checkpoint,
    resume,
    stop_not_finite,
)
from vaekit.training.elbo import evaluate
from vaekit.training.feeds import make_feed
from vaekit.training.interruption import Interrupted, Interruption
from vaekit.training.losses import Losses
from vaekit.training.noise import Stream, epoch_order, normal_noise, stream_seed
from vaekit.training.process import set_up_process
from vaekit.training.ranks import (
    agree,
    first_on_each_machine,
    lost_ranks_in_one_line,
    start_accelerator,
)
from vaekit.training.step import Stepper, learning_rate

REPORT_STEPS = 20  # between two looks at the loss
NUM_SAMPLES = 64
NUM_RECONSTRUCTIONS = 32


class Wish(IntEnum):
    """What a rank wants between two steps; the greatest wish of all ranks is granted.

    128 and more is a wish to stop, with that exit code.
    """

    GO_ON = 0
    READ_LOSSES = 1
    CHECKPOINT = 2
    STOP = 128


@lost_ranks_in_one_line()
def train(config: TrainConfig) -> None:
    """Train, or resume, the run that `config` describes, in its run folder.

    A run is a function of its config and images: a resumed one equals an uninterrupted one bit
    for bit. SIGTERM and SIGINT end it after the step under way, with a checkpoint and
    `SystemExit`. Raises `UserError` for what the user can mend, before any long work.
    """
    accelerator = start_accelerator(config)
    with first_on_each_machine(accelerator):
        images = load_images(config.data, config.seed)
    require_divisible_batch(config, accelerator.num_processes, len(images.train.pixels))
    feature_shape(config.model, images.shape)
    run = RunFolder(Path(str(config.run)))
    with claimed(run, config, accelerator), Interruption() as interruption:
        training = set_up(config, accelerator, run, images, interruption)
        resume(training)
        announce(training)
        try:
            with show_progress(training) as progress:
                for epoch in range(len(training.metrics), config.epochs + 1):
                    losses = run_epoch(training, epoch, progress) if epoch > 0 else None
                    record_epoch(training, epoch, losses, progress)
        except Interrupted as request:
            leave(training, request)
    accelerator.end_training()
    accelerator.print(f"trained: {run.path}   next: vaekit latents {run.quoted}")


def require_divisible_batch(config: TrainConfig, num_processes: int, num_images: int) -> None:
    if config.batch_size > num_images:
        raise UserError(
            f"--batch_size {config.batch_size}: the training set has {num_images} images; "
            f"give at most that"
        )
    if config.batch_size % num_processes:
        raise UserError(
            f"--batch_size {config.batch_size}: it is the global one and must be divisible by "
            f"the {num_processes} processes; give a multiple of {num_processes}"
        )


@contextmanager
def claimed(run: RunFolder, config: TrainConfig, accelerator: Accelerator) -> Iterator[None]:
    """The run folder, locked by the main process for the time of the block."""
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        yield
        return
    run.require_free_or_own()
    with run.lock():
        run.start(config)
        accelerator.wait_for_everyone()
        yield


def set_up(
    config: TrainConfig,
    accelerator: Accelerator,
    run: RunFolder,
    images: Images,
    interruption: Interruption,
) -> Training:
    """Model, average, optimizer and images, as they are before the first step."""
    set_up_process(accelerator.device)
    torch.manual_seed(stream_seed(config.seed, Stream.WEIGHTS))
    vae = VAE(config.model, images.shape)
    ema = deepcopy(vae).requires_grad_(False).eval().to(accelerator.device)
    feed = make_feed(images.train.pixels, config, accelerator)
    steps_per_epoch = len(images.train.pixels) // config.batch_size
    return Training(
        config=config,
        accelerator=accelerator,
        run=run,
        images=images,
        images_sha256=images.sha256(),
        vae=vae,
        ema=ema,
        stepper=Stepper(config, accelerator, vae, ema, feed, steps_per_epoch),
        interruption=interruption,
    )


def announce(training: Training) -> None:
    """Say what is about to happen, and record it in the run folder."""
    accelerator, config, run = training.accelerator, training.config, training.run
    if config.tracker is not None:
        settings = {name: str(value) for name, value in flatten(to_dict(config)).items()}
        accelerator.init_trackers("vaekit", config=settings)
    if not accelerator.is_main_process:
        return
    write_config(run.config, config)
    path = training.stepper.path
    facts = describe_environment(accelerator, path, training.step)
    run.append_environment(facts)
    if training.step > 0:  # what is beyond the checkpoint will be made again
        note_changes(run)
        run.write_metrics(training.metrics)
        if not run.model.exists():
            write_weights(training)
    tensors = checkpoint_tensors(training).values()
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    precision = {"no": "float32"}.get(facts["mixed_precision"], facts["mixed_precision"])
    print(
        f"{num_parameters(training.vae):,} parameters, {num_bytes / 1e6:,.0f} MB a checkpoint; "
        f"{facts['device']}, {facts['num_processes']} process(es), {precision}, {path}\n"
        f"{len(training.images.train.pixels):,} images, {training.steps_per_epoch:,} steps an "
        f"epoch, {training.total_steps:,} in all"
        + (f", {training.step:,} of them done" if training.step else ""),
        flush=True,
    )


def note_changes(run: RunFolder) -> None:
    """Say where the last start and the one before it may round in different ways."""
    starts = run.read_environment()
    if len(starts) > 1 and (changes := changes_since(*starts[-2:])):
        say(
            f"note: not as at the last start of {run.path} ({'; '.join(changes)}): the result may "
            f"differ by rounding from that of an uninterrupted run"
        )


def show_progress(training: Training) -> Progress:
    batch_size = training.config.batch_size
    return Progress(
        "training",
        total=training.total_steps * batch_size,
        unit="images",
        done=training.step * batch_size,
        visible=training.accelerator.is_main_process,
    )


def run_epoch(training: Training, epoch: int, progress: Progress) -> Losses:
    """What is left of a pass over the training set; the mean losses of the whole pass.

    Raises `UserError` where a step was not finite, `Interrupted` where somebody asks to stop.
    Every rank sees the same, so all stop.
    """
    config, stepper = training.config, training.stepper
    training.epoch = epoch
    order = epoch_order(config.seed, epoch, len(training.images.train.pixels))
    if training.steps_into_epoch == 0:
        training.losses, training.seconds = training.losses[:0], 0.0
    stepper.start_epoch(order, training.steps_into_epoch, training.losses)
    started = time.monotonic() - training.seconds
    reported = training.step
    training.vae.train()
    while training.steps_into_epoch < training.steps_per_epoch:
        stepper.advance(training.step)
        training.step += 1
        training.seconds = time.monotonic() - started
        is_last = training.steps_into_epoch == training.steps_per_epoch
        wish = Wish.CHECKPOINT if not is_last and training.is_checkpoint_due() else Wish.GO_ON
        if training.step - reported == REPORT_STEPS or is_last:
            latest = stepper.losses.latest(training.steps_into_epoch)
            note = f"epoch {epoch}/{config.epochs}"
            if latest is not None:
                note += f", loss {latest.loss:.2f}"
                wish = wish if math.isfinite(latest.loss) else Wish.READ_LOSSES
            progress.advance((training.step - reported) * config.batch_size, note)
            reported = training.step
        grant(training, wish)
    losses = training.read_losses()
    training.seconds = time.monotonic() - started
    return losses


def grant(training: Training, wish: int) -> None:
    """Do what the ranks agree on; each comes here at the same points, with its own wish.

    Raises `Interrupted` where one of them was asked to stop, `UserError` where the losses are
    read and a step was not finite.
    """
    agreed = agree(training.accelerator, max(wish, training.interruption.exit_code))
    if agreed >= Wish.STOP:
        raise Interrupted(agreed)
    if agreed == Wish.CHECKPOINT:
        save(training)
    elif agreed == Wish.READ_LOSSES:
        training.read_losses()


def save(training: Training) -> None:
    """Write a checkpoint of the step that is done."""
    checkpoint = make_checkpoint(training)
    if training.accelerator.is_main_process:
        save_checkpoint(training.run.checkpoints, checkpoint)
    training.saved_at = time.monotonic()


def leave(training: Training, request: Interrupted) -> NoReturn:
    """Stop as asked, with all that was done in a checkpoint."""
    accelerator, run = training.accelerator, training.run
    if training.step > 0:
        save(training)
    # A launcher kills the others once one process has gone.
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if accelerator.is_main_process:
        say(f"stopped after step {training.step:,}; `{run.train_again}` goes on from there")
    sys.exit(request.exit_code)


def record_epoch(training: Training, epoch: int, losses: Losses | None, progress: Progress) -> None:
    """Evaluate the averaged weights and write what an epoch leaves in the run folder.

    Epoch 0 is before training and has no `losses`.
    """
    config, run, accelerator = training.config, training.run, training.accelerator
    last = epoch == config.epochs
    test_losses = evaluate_average(training, training.images.test)
    if not math.isfinite(test_losses.loss):
        stop_not_finite(training, training.step)
    num_images = training.steps_per_epoch * config.batch_size
    row: dict[str, Any] = {
        "epoch": epoch,
        "step": training.step,
        **_prefixed("train_", losses),
        **_prefixed("test_", test_losses),
        "learning_rate": learning_rate(config, training.step, training.total_steps),
        "images_per_second": num_images / training.seconds if losses else None,
        "seconds": training.seconds if losses else None,
    }
    if last:
        # The mean over an epoch is of moving weights and noisy inputs; this is neither.
        row |= _prefixed("final_train_", evaluate_average(training, training.images.train))
    training.metrics.append(row)
    if accelerator.is_main_process:
        run.write_metrics(training.metrics)
        write_weights(training)
        if epoch % config.sample_every == 0 or last:
            write_pictures(training, epoch)
        progress.line(_epoch_line(row, config.epochs))
    if epoch > 0 and (last or training.is_checkpoint_due(epoch)):
        save(training)
    accelerator.wait_for_everyone()
    # Last, since a tracker may raise whatever it likes: the epoch is safe by now.
    accelerator.log({key: value for key, value in row.items() if value is not None}, step=epoch)


def evaluate_average(training: Training, image_set: ImageSet) -> Losses:
    """The loss of the averaged weights; somebody may ask to stop in between."""
    return evaluate(
        training.ema,
        image_set.pixels,
        training.config.seed,
        training.accelerator,
        between_batches=lambda: grant(training, Wish.GO_ON),
    )


def write_weights(training: Training) -> None:
    training.run.write_weights(training.ema, training.images.class_names, training.images_sha256)


def _prefixed(prefix: str, losses: Losses | None) -> dict[str, float | None]:
    return {
        prefix + name: None if losses is None else getattr(losses, name)
        for name in ("loss", "reconstruction", "kl")
    }


def _epoch_line(row: dict[str, Any], epochs: int) -> str:
    test = (
        f"test loss {row['test_loss']:.2f} "
        f"({row['test_reconstruction']:.2f} + {row['test_kl']:.2f} KL)"
    )
    if row["train_loss"] is None:
        return f"before training: {test}"
    return (
        f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.2f}, {test}, "
        f"{row['images_per_second']:,.0f} images/s"
    )


@torch.no_grad()
def write_pictures(training: Training, epoch: int) -> None:
    """Generated images from the same latents at every epoch, and reconstructions."""
    from vaekit.images.pictures import (  # they need Pillow
        image_grid,
        reconstruction_grid,
        write_image,
    )

    device = training.accelerator.device
    shape = (NUM_SAMPLES, training.config.model.latent_dim)
    latents = normal_noise(shape, training.config.seed, Stream.SAMPLES, 0, device)
    generated = as_pixels(training.ema.decode(latents))
    write_image(training.run.samples(epoch), image_grid(generated))
    originals = training.images.test.pixels[:NUM_RECONSTRUCTIONS]
    images = as_floats(torch.from_numpy(originals).to(device))
    reconstructed = as_pixels(training.ema.decode(training.ema.enc(images).mean))
    write_image(training.run.reconstructions(epoch), reconstruction_grid(originals, reconstructed))


if __name__ == "__main__":
    with user_errors_in_one_line():
        train(parse(TrainConfig))
