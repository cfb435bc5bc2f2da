"""Training: the entry of `accelerate launch vaekit/train.py`."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from vaekit.arguments import parse
from vaekit.batches import (
    Stream,
    as_floats,
    as_pixels,
    epoch_order,
    normal_noise,
    rank_slice,
    resident,
    stream_seed,
)
from vaekit.checkpoint import Checkpoint, load_newest_checkpoint, save_checkpoint
from vaekit.config import (
    TrainConfig,
    flatten,
    from_dict,
    to_dict,
    trajectory_differences,
    write_config,
)
from vaekit.environment import describe_environment
from vaekit.errors import UserError, user_errors_in_one_line
from vaekit.figures import image_grid, reconstruction_grid, write_image
from vaekit.images import Images, load_images
from vaekit.model import VAE, feature_shape, num_parameters
from vaekit.objective import negative_elbo
from vaekit.processes import start_accelerator
from vaekit.progress import Progress
from vaekit.run_folder import RunFolder
from vaekit.step import Training, learning_rate, run_step

EVALUATION_BATCH = 500
REPORT_STEPS = 20  # the loss is read, and checked, every so many steps
NUM_SAMPLES = 64
NUM_RECONSTRUCTIONS = 32
EXECUTION_PATH = "eager"


class Losses(NamedTuple):
    """Means over images, in nats per image."""

    reconstruction: float
    kl: float

    @property
    def loss(self) -> float:
        return self.reconstruction + self.kl


class EpochResult(NamedTuple):
    """The running mean of an epoch's losses, and what it took."""

    losses: Losses
    seconds: float


def train(config: TrainConfig) -> None:
    """Train, or resume, the run that `config` describes, in its run folder.

    A run is a function of its config and images: a resumed one equals an uninterrupted one bit
    for bit. Raises `UserError` for what the user can mend, before any long work.
    """
    accelerator = start_accelerator(config)
    with accelerator.local_main_process_first():
        images = load_images(config.data, config.seed)
    require_divisible_batch(config, accelerator.num_processes, len(images.train.pixels))
    feature_shape(config.model, images.shape)
    run = RunFolder(Path(str(config.run)))
    with claimed(run, config, accelerator):
        training = set_up(config, accelerator, run, images)
        resume(training)
        announce(training)
        with show_progress(training) as progress:
            if training.step == 0:
                record_epoch(training, 0, None, progress)
            for epoch in range(training.step // training.steps_per_epoch + 1, config.epochs + 1):
                result = run_epoch(training, epoch, progress)
                record_epoch(training, epoch, result, progress)
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
    config: TrainConfig, accelerator: Accelerator, run: RunFolder, images: Images
) -> Training:
    """Model, average, optimizer and resident images, as they are before the first step."""
    torch.backends.cudnn.deterministic = True
    torch.manual_seed(stream_seed(config.seed, Stream.WEIGHTS))
    vae = VAE(config.model, images.shape)
    ema = deepcopy(vae).requires_grad_(False).eval().to(accelerator.device)
    weights = [parameter for parameter in vae.parameters() if parameter.ndim > 1]
    biases = [parameter for parameter in vae.parameters() if parameter.ndim == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": config.weight_decay},
            {"params": biases, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        fused=True,
    )
    parallel_vae, parallel_optimizer = accelerator.prepare(vae, optimizer)
    return Training(
        config=config,
        accelerator=accelerator,
        run=run,
        images=images,
        images_sha256=images.sha256(),
        train_pixels=resident(images.train.pixels, accelerator.device),
        test_pixels=resident(images.test.pixels, accelerator.device),
        vae=vae,
        parallel_vae=parallel_vae,
        ema=ema,
        optimizer=parallel_optimizer,
    )


def announce(training: Training) -> None:
    """Say what is about to happen, and record it in the run folder."""
    accelerator, config = training.accelerator, training.config
    if config.tracker is not None:
        settings = {name: str(value) for name, value in flatten(to_dict(config)).items()}
        accelerator.init_trackers("vaekit", config=settings)
    if not accelerator.is_main_process:
        return
    write_config(training.run.config, config)
    facts = describe_environment(accelerator, EXECUTION_PATH, training.step)
    training.run.append_environment(facts)
    tensors = checkpoint_tensors(training).values()
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if training.step == 0:  # Adam makes its two moments at the first step
        num_bytes += 2 * sum(4 * parameter.numel() for parameter in training.vae.parameters())
    precision = {"no": "float32"}.get(facts["mixed_precision"], facts["mixed_precision"])
    print(
        f"{num_parameters(training.vae):,} parameters, {num_bytes / 1e6:,.0f} MB a checkpoint; "
        f"{facts['device']}, {facts['num_processes']} process(es), {precision}, {EXECUTION_PATH}\n"
        f"{len(training.train_pixels):,} images, {training.steps_per_epoch:,} steps an epoch, "
        f"{training.total_steps:,} in all"
        + (f", {training.step:,} of them done" if training.step else ""),
        flush=True,
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


def run_epoch(training: Training, epoch: int, progress: Progress) -> EpochResult:
    """One pass over the training set.

    Raises `UserError` where a loss is not finite. Every rank reads the same losses, so all stop.
    """
    config = training.config
    started = time.monotonic()
    order = epoch_order(config.seed, epoch, len(training.train_pixels))
    order = order.to(training.accelerator.device)
    unread: list[Tensor] = []  # losses [2] of a step, still on the device
    total = np.zeros(2)
    training.parallel_vae.train()
    for batch in range(training.steps_per_epoch):
        unread.append(run_step(training, order, batch))
        training.step += 1
        if len(unread) == REPORT_STEPS or batch + 1 == training.steps_per_epoch:
            total += read_losses(training, unread)
            mean = Losses(*(total / (batch + 1)).tolist())
            progress.advance(
                len(unread) * config.batch_size,
                f"epoch {epoch}/{config.epochs}, loss {mean.loss:.2f}",
            )
            unread.clear()
    return EpochResult(mean, time.monotonic() - started)


def read_losses(training: Training, losses: list[Tensor]) -> NDArray[np.float64]:
    """The sum over steps of the global losses, [2]; raises `UserError` where one is not finite."""
    reduced = training.accelerator.reduce(torch.stack(losses), reduction="mean")
    values: NDArray[np.float64] = reduced.cpu().double().numpy()
    not_finite = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if not_finite.size:
        stop_not_finite(training, training.step - len(losses) + int(not_finite[0]) + 1)
    total: NDArray[np.float64] = values.sum(axis=0)
    return total


def stop_not_finite(training: Training, step: int) -> NoReturn:
    epoch = math.ceil(step / training.steps_per_epoch)
    kept = max(training.run.checkpoints.glob("step-*"), default=None)
    raise UserError(
        f"the loss is not finite at step {step} (epoch {epoch}), expected a finite one; "
        f"{f'{kept} is kept' if kept else 'there is no checkpoint yet'}; "
        f"try a lower --learning_rate in another --run folder"
    )


def record_epoch(
    training: Training, epoch: int, result: EpochResult | None, progress: Progress
) -> None:
    """Evaluate the averaged weights and write what an epoch leaves in the run folder.

    Epoch 0 is before training and has no `result`.
    """
    config, run, accelerator = training.config, training.run, training.accelerator
    last = epoch == config.epochs
    test_losses = evaluate(training, training.test_pixels)
    if not math.isfinite(test_losses.loss):
        stop_not_finite(training, training.step)
    num_images = training.steps_per_epoch * config.batch_size
    row: dict[str, Any] = {
        "epoch": epoch,
        "step": training.step,
        **_prefixed("train_", result.losses if result else None),
        **_prefixed("test_", test_losses),
        "learning_rate": learning_rate(config, training.step, training.total_steps),
        "images_per_second": num_images / result.seconds if result else None,
        "seconds": result.seconds if result else None,
    }
    if last:
        # The mean over an epoch is of moving weights and noisy inputs; this is neither.
        row |= _prefixed("final_train_", evaluate(training, training.train_pixels))
    training.metrics.append(row)
    accelerator.log({key: value for key, value in row.items() if value is not None}, step=epoch)
    if accelerator.is_main_process:
        run.write_metrics(training.metrics)
        write_weights(training)
        if epoch % config.sample_every == 0 or last:
            write_pictures(training, epoch)
        if epoch > 0 and (epoch % config.checkpoint_every == 0 or last):
            save_checkpoint(run.checkpoints, make_checkpoint(training))
        progress.line(_epoch_line(row, config.epochs))
    accelerator.wait_for_everyone()


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
def evaluate(training: Training, pixels: Tensor) -> Losses:
    """The loss of the averaged weights over a whole set, z sampled with a fixed seed."""
    accelerator, config = training.accelerator, training.config
    device, count = accelerator.device, len(pixels)
    noise = normal_noise(
        (count, config.model.latent_dim), config.seed, Stream.EVALUATION, 0, device
    )
    share = rank_slice(count, accelerator.process_index, accelerator.num_processes)
    sums = [torch.zeros(2, device=device)]
    for start in range(share.start, share.stop, EVALUATION_BATCH):
        batch = slice(start, min(start + EVALUATION_BATCH, share.stop))
        images = as_floats(pixels[batch])
        with accelerator.autocast():
            output = training.ema(images, noise[batch])
        elbo = negative_elbo(output.logits, images, output.posterior)
        sums.append(torch.stack([elbo.reconstruction.sum(), elbo.kl.sum()]))
    total = accelerator.reduce(torch.stack(sums).sum(dim=0))
    return Losses(*(total.cpu().double() / count).tolist())


@torch.no_grad()
def write_pictures(training: Training, epoch: int) -> None:
    """Generated images from the same latents at every epoch, and reconstructions."""
    device = training.accelerator.device
    shape = (NUM_SAMPLES, training.config.model.latent_dim)
    latents = normal_noise(shape, training.config.seed, Stream.SAMPLES, 0, device)
    generated = as_pixels(training.ema.decode(latents))
    write_image(training.run.samples(epoch), image_grid(generated))
    originals = training.test_pixels[:NUM_RECONSTRUCTIONS]
    means = training.ema.enc(as_floats(originals)).mean
    write_image(
        training.run.reconstructions(epoch),
        reconstruction_grid(originals.cpu().numpy(), as_pixels(training.ema.decode(means))),
    )


def checkpoint_tensors(training: Training) -> dict[str, Tensor]:
    """Weights, averaged weights and optimizer moments under names of their own."""
    tensors = {f"model.{name}": t for name, t in training.vae.state_dict().items()}
    tensors |= {f"ema.{name}": t for name, t in training.ema.state_dict().items()}
    for index, moments in training.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": t for name, t in moments.items()}
    return tensors


def make_checkpoint(training: Training) -> Checkpoint:
    scaler = training.accelerator.scaler
    facts = {
        **run_facts(training),
        "config": to_dict(training.config),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "metrics": training.metrics,
    }
    return Checkpoint(training.step, checkpoint_tensors(training), facts)


def run_facts(training: Training) -> dict[str, str]:
    """What the trajectory depends on beside the config; a resumed run must find it unchanged."""
    return {
        "mixed_precision": training.accelerator.mixed_precision,
        "execution_path": EXECUTION_PATH,
        "images_sha256": training.images_sha256,
    }


def resume(training: Training) -> None:
    """Continue from the newest whole checkpoint, where there is one."""
    checkpoint = load_newest_checkpoint(training.run.checkpoints)
    if checkpoint is None:
        return
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
    tensors = checkpoint.tensors
    training.vae.load_state_dict(_under("model.", tensors))
    training.ema.load_state_dict(_under("ema.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _under("optimizer.", tensors).items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = tensor
    groups = training.optimizer.state_dict()["param_groups"]
    training.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    if training.accelerator.scaler is not None:
        training.accelerator.scaler.load_state_dict(checkpoint.facts["scaler"])
    training.step = checkpoint.step
    training.metrics = checkpoint.facts["metrics"]
    if training.accelerator.is_main_process:
        training.run.write_metrics(training.metrics)
        if not training.run.model.exists():
            write_weights(training)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


if __name__ == "__main__":
    with user_errors_in_one_line():
        train(parse(TrainConfig))
