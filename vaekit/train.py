"""Training: the entry of `accelerate launch vaekit/train.py`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
from accelerate import Accelerator
from numpy.typing import ArrayLike, NDArray

from vaekit.config import TrainConfig, settled
from vaekit.errors import UserError, say, user_errors_in_one_line
from vaekit.images.image_set import Images
from vaekit.images.in_memory import settings_of
from vaekit.images.pixels import ImageShape
from vaekit.images.ranks import Ranks
from vaekit.images.reading import Reading
from vaekit.images.sets import count, images_in_memory, load_images
from vaekit.models.settle import settle_model
from vaekit.models.vae import require_fit
from vaekit.progress import Progress
from vaekit.runs.baselines import measure_baselines
from vaekit.runs.checkpoints import save_checkpoint
from vaekit.runs.environment import (
    append_environment,
    changes_since,
    read_environment,
)
from vaekit.runs.folder import RunFolder
from vaekit.runs.initial import read_initial, starting_from
from vaekit.runs.metrics import write_metrics
from vaekit.runs.pictures import write_pictures
from vaekit.runs.products import READING
from vaekit.runs.reading import write_reading
from vaekit.runs.resume import resume, with_recorded_precision
from vaekit.runs.run import Run
from vaekit.runs.trackers import Trackers, require_trackers
from vaekit.runs.verdict import final_figures, judge, lines
from vaekit.runs.weights import write_weights
from vaekit.settings import parse, write_config
from vaekit.training import loop
from vaekit.training.augmentation import augmentation_told
from vaekit.training.environment import describe_environment
from vaekit.training.feeds import MEGABYTE, FetchingFeed, is_resident, resident_limit
from vaekit.training.graph import require_compilable
from vaekit.training.interruption import Interrupted, Interruption
from vaekit.training.memory import estimate, require_memory
from vaekit.training.precision import TITLES
from vaekit.training.process import set_up_process
from vaekit.training.ranks import (
    ImageRanks,
    lost_ranks_in_one_line,
    start_accelerator,
)
from vaekit.training.settle import require_warmup_within, settle, too_few_steps
from vaekit.training.state import Checkpoint, NotFiniteError, Training


@lost_ranks_in_one_line()
def train(
    config: TrainConfig,
    images: NDArray[np.uint8] | None = None,
    labels: ArrayLike | None = None,
) -> Run:
    """Train, or resume, the run that `config` describes, in its run folder.

    Its images are those that `config.data` names, or `images`, uint8 [N, H, W], [N, H, W, C] or
    [N, C, H, W], with or without `labels` [N], whole numbers or words; a tenth of these is held
    out to test on. The folder then holds their sha256, and they are to be given to `Run` again
    where a stage needs them.

    A run is a function of its config and images: a resumed one equals an uninterrupted one bit
    for bit. SIGTERM and SIGINT end it after the step under way, with a checkpoint and
    `SystemExit`. Raises `UserError` for what the user can mend, before any long work.
    """
    if images is not None:
        config = of_arrays(config, images)
    run = RunFolder(Path(str(config.run)))
    config = with_recorded_precision(run.as_recorded(config), run)
    require_trackers(config.tracker)
    accelerator = start_accelerator(config)
    if config.compile:
        require_compilable(accelerator)
    config = replace(config, mixed_precision=accelerator.mixed_precision)
    initial = read_initial(config, run)
    if config.data.name == "folder" and initial is None:  # grey at least; before decoding
        least = (1, *config.data.size)
        require_room(as_small_as_can_be(config, least), least, accelerator)
    loaded = load(config, images, labels, ImageRanks(accelerator))
    reading = told(loaded, config, accelerator)
    config = settle(starting_from(initial, config, loaded.shape), loaded)
    require_divisible_batch(config, accelerator.num_processes)
    if not run.config.exists():  # runs of before this was refused go on
        require_warmup_within(config, len(loaded.train.pixels))
    pixels, device = loaded.train.pixels, accelerator.device
    stay = device.type == "cuda" and is_resident(pixels, config.data, device)
    takes = require_room(config, loaded.shape, accelerator, pixels.nbytes if stay else 0)
    if accelerator.is_main_process:
        print(takes, flush=True)
    with claimed(run, config, accelerator), Trackers() as trackers:
        with Interruption() as interruption, kept_checkpoint_named(run):
            training = set_up(config, loaded, accelerator)
            if initial is not None:
                training.start_from(initial.vae)
            resume(training, run)
            announce(training, run, reading)
            if accelerator.is_main_process:
                trackers.start(config, run)
            try:
                with show_progress(training) as progress:
                    for event in loop.run(training, lambda: interruption.exit_code):
                        record(event, training, run, progress, trackers)
            except Interrupted as request:
                leave(training, run, request)
        accelerator.end_training()
        if accelerator.is_main_process:
            compare(training, run, trackers)
    accelerator.print(f"trained: {run.path}   next: vaekit latents {run.quoted}")
    return Run(run.path, images=images, labels=labels)


def of_arrays(config: TrainConfig, images: NDArray[np.uint8]) -> TrainConfig:
    """`config` for a run of these arrays, in a folder of its own unless another one is named."""
    data = settings_of(images, config.data)
    is_default = config.run == TrainConfig(data=config.data).run
    return replace(config, data=data, run=None if is_default else config.run)


def load(
    config: TrainConfig, images: NDArray[np.uint8] | None, labels: ArrayLike | None, ranks: Ranks
) -> Images:
    """The images of the run: these arrays, or what its settings name."""
    if images is None:
        return load_images(config.data, config.seed, ranks=ranks)
    return images_in_memory(images, labels, config.data, config.seed)


def as_small_as_can_be(config: TrainConfig, image_shape: ImageShape) -> TrainConfig:
    """`config` with a model and a batch for images that are not known yet but for this shape."""
    model = settle_model(config.model, image_shape, config.data.name)
    batch_size = 1 if config.batch_size == "auto" else config.batch_size
    return replace(config, model=model, batch_size=batch_size)


def require_room(
    config: TrainConfig, image_shape: ImageShape, accelerator: Accelerator, resident: int = 0
) -> str:
    """What the run takes, in a line, with so many bytes of images on the device.

    Raises `UserError` where it can't fit the images or memory.
    """
    require_fit(config.model, image_shape)
    memory = estimate(config, image_shape, accelerator.num_processes, resident)
    return require_memory(memory, accelerator.device, config)


def told(images: Images, config: TrainConfig, accelerator: Accelerator) -> Reading:
    """Say what was read, and what was not or as something else, which `strict` makes an error."""
    reading = count(images)
    if accelerator.is_main_process:
        print("\n".join(reading.summary()), flush=True)
        for line in reading.deviations():
            say(line)
    if config.data.strict:
        reading.require_none(config.data.root)
    return reading


def require_divisible_batch(config: TrainConfig, num_processes: int) -> None:
    if settled(config.batch_size) % num_processes:
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


@contextmanager
def kept_checkpoint_named(run: RunFolder) -> Iterator[None]:
    """Where a loss is not finite, say which checkpoint there is, and what to do."""
    try:
        yield
    except NotFiniteError as error:
        kept = max(run.checkpoints.glob("step-*"), default=None)
        raise UserError(
            f"{error.fault}; {f'{kept} is kept' if kept else 'there is no checkpoint yet'}; "
            f"try a lower --learning_rate in another --run folder"
        ) from error


def set_up(config: TrainConfig, images: Images, accelerator: Accelerator) -> Training:
    """This process and the training as they are before the first step."""
    set_up_process(accelerator.device)
    training = Training(config, images, accelerator)
    _ = training.images_sha256  # by all ranks at once, rather than when one wants it
    if isinstance(training.feed, FetchingFeed) and accelerator.is_main_process:
        limit = resident_limit(config.data, accelerator.device)
        more = "" if limit is None else f", more than the {limit:,} to keep on the device"
        say(
            f"{images.train.pixels.nbytes / MEGABYTE:,.0f} MB of training images{more}: batches "
            f"are fetched ahead of their steps"
        )
    return training


def announce(training: Training, run: RunFolder, reading: Reading) -> None:
    """Say what is about to happen, and record it in the run folder."""
    accelerator, config = training.accelerator, training.config
    if not accelerator.is_main_process:
        return
    write_config(run.config, config)
    environment = describe_environment(accelerator, training.stepper.path, training.step)
    append_environment(run.environment, environment)
    write_reading(READING.path(run), reading)
    if training.step > 0:  # what is beyond the checkpoint will be made again
        note_changes(run)
        write_metrics(run.metrics, training.metrics)
        if not run.model.exists():
            save_weights(training, run)
    print(_plan(training, environment), flush=True)
    if config.compile:
        print("the first step is compiled, which takes half a minute", flush=True)
    warning = too_few_steps(config, len(training.images.train.pixels))
    if warning and training.step == 0:
        say(warning)


def note_changes(run: RunFolder) -> None:
    """Say where the last start and the one before it may round in different ways."""
    starts = read_environment(run.environment)
    if len(starts) > 1 and (changes := changes_since(*starts[-2:])):
        say(
            f"note: not as at the last start of {run.path} ({'; '.join(changes)}): the result may "
            f"differ by rounding from that of an uninterrupted run"
        )


def show_progress(training: Training) -> Progress:
    batch_size = settled(training.config.batch_size)
    return Progress(
        "training",
        total=training.total_steps * batch_size,
        unit="images",
        done=training.step * batch_size,
        visible=training.accelerator.is_main_process,
    )


def record(
    event: loop.Event, training: Training, run: RunFolder, progress: Progress, trackers: Trackers
) -> None:
    """Show what has happened, or write it into the run folder."""
    match event:
        case loop.Advanced(epoch, num_steps, losses):
            note = f"epoch {epoch}/{training.config.epochs}"
            if losses is not None:
                note += f", loss {losses.loss:.2f}"
                trackers.log({"loss": losses.loss, **losses._asdict()}, training.step)
            progress.advance(num_steps * settled(training.config.batch_size), note)
        case loop.CheckpointDue(checkpoint):
            save(checkpoint, training, run)
        case loop.EpochDone():
            record_epoch(event, training, run, progress, trackers)


def record_epoch(
    done: loop.EpochDone,
    training: Training,
    run: RunFolder,
    progress: Progress,
    trackers: Trackers,
) -> None:
    """Write what an epoch leaves in the run folder; the checkpoint last, for it vouches for all."""
    config, accelerator, epoch = training.config, training.accelerator, training.epoch
    if accelerator.is_main_process:
        write_metrics(run.metrics, training.metrics)
        save_weights(training, run)
        if epoch % config.sample_every == 0 or epoch == config.epochs:
            write_pictures(training, run, epoch)
        progress.line(_epoch_line(done.metrics, settled(config.epochs)))
    if done.checkpoint is not None:
        save(done.checkpoint, training, run)
    accelerator.wait_for_everyone()
    # Last, since a tracker may take as long as it likes: the epoch is safe by now.
    known = {key: value for key, value in done.metrics.items() if value is not None}
    trackers.log(known, training.step)
    pictures = {"samples": run.samples(epoch), "reconstructions": run.reconstructions(epoch)}
    if all(path.is_file() for path in pictures.values()):
        trackers.show(pictures, training.step)


def save(checkpoint: Checkpoint, training: Training, run: RunFolder) -> None:
    """Write a checkpoint, which every rank has and the main one keeps."""
    if training.accelerator.is_main_process:
        save_checkpoint(run.checkpoints, checkpoint)


def leave(training: Training, run: RunFolder, request: Interrupted) -> NoReturn:
    """Stop as asked, with all that was done in a checkpoint."""
    accelerator = training.accelerator
    if training.step > 0:
        save(training.checkpoint(), training, run)
    # A launcher kills the others once one process has gone.
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if accelerator.is_main_process:
        say(f"stopped after step {training.step:,}; `{run.train_again}` goes on from there")
    sys.exit(request.exit_code)


def compare(training: Training, run: RunFolder, trackers: Trackers) -> None:
    """Measure the run against what takes no training, and say which is better."""
    trained = Run(run.path)
    if trained.baselines is None:
        images = training.images
        measure_baselines(run, training.kept, images, training.images_sha256)
        trained.forget("baselines")
    trackers.log(final_figures(training.metrics, trained.baselines), training.step)
    for line in lines(judge(training.config, training.metrics, trained.baselines)):
        print(line, flush=True)


def save_weights(training: Training, run: RunFolder) -> None:
    images = training.images
    write_weights(run, training.kept, images.class_names, training.images_sha256, images.appearance)


def _plan(training: Training, environment: dict[str, Any]) -> str:
    precision = TITLES[environment["mixed_precision"]]
    done = f", {training.step:,} of them done" if training.step else ""
    config, model = training.config, training.config.model
    augmented = augmentation_told(config, ", augmented")
    return (
        f"{model.architecture}, {model.latent_dim} latent dimensions, losses in "
        f"{training.vae.likelihood.unit}\n"
        f"{environment['device']}, {environment['num_processes']} process(es), {precision}, "
        f"{environment['execution_path']}\n"
        f"{len(training.images.train.pixels):,} images in batches of "
        f"{config.batch_size}{augmented}, {training.steps_per_epoch:,} steps an epoch, "
        f"{training.total_steps:,} in all{done}"
    )


def _epoch_line(row: dict[str, Any], epochs: int) -> str:
    test = (
        f"test loss {row['test_loss']:.2f} "
        f"({row['test_reconstruction']:.2f} + {row['test_kl']:.2f} KL)"
    )
    if "validation_loss" in row:
        test += f", validation loss {row['validation_loss']:.2f}"
    if row["train_loss"] is None:
        return f"before training: {test}"
    if row.get("kept_epoch") == row["epoch"]:
        test += " (the best so far)"
    return (
        f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.2f}, {test}, "
        f"{row['images_per_second']:,.0f} images/s"
    )


class _CallableModule(ModuleType):
    """`vaekit.train` is the name of this script, and of the function that Python calls."""

    def __call__(
        self,
        config: TrainConfig,
        images: NDArray[np.uint8] | None = None,
        labels: ArrayLike | None = None,
    ) -> Run:
        return train(config, images, labels)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    with user_errors_in_one_line():
        train(parse(TrainConfig))
