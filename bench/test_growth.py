"""How cost grows: with images, batch, latent dimensions and processes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.growth import Growth, seconds_of
from bench.made_up import clouds, noisy_images
from bench.trainings import PRECISIONS, SMALL, epochs_of, start_training
from vaekit.config import ModelConfig, SvmConfig
from vaekit.images.image_set import ImageSet
from vaekit.models.settle import REFERENCE
from vaekit.models.vae import VAE
from vaekit.stages.latents import encode_into
from vaekit.svm.fit import fit_table
from vaekit.svm.table import predict
from vaekit.training.ranks import start_ranks

Grow = Callable[[Growth], None]

ROOT = Path(__file__).parent.parent
NUM_IMAGES = (1000, 4000, 15_000, 60_000)
BATCH_SIZES = (32, 128, 512, 2048)
LATENT_DIMS = (2, 10, 50, 256)
NUM_PROCESSES = (1, 2)
FLAGS = ("--data.name", "digits", "--data.limit", "1024", "--batch_size", "128")
QUICK_FLAGS = ("--data.name", "digits", "--data.limit", "16", "--batch_size", "8")
QUICK_FLAGS += ("--model.conv_channels", "[2]", "--model.hidden_dims", "[8]")
NUM_STEPS = {"cpu": 1, "cuda": 50}
ROUNDS = 3
PRECISION = PRECISIONS[-1]


@pytest.fixture
def num_images(is_quick: bool) -> Sequence[int]:
    return (100, 200) if is_quick else NUM_IMAGES


def test_images_to_latents(grow: Grow, num_images: Sequence[int], tmp_path: Path) -> None:
    ranks = start_ranks()
    vae, pixels = VAE().eval().to(ranks.device), noisy_images(max(num_images))
    grow(
        Growth(
            work="latents",
            unit="images",
            calls={
                num: seconds_of(
                    lambda num=num: encode_into(
                        tmp_path / "latents.npy", vae, ImageSet(pixels[:num], None), ranks
                    )
                )
                for num in num_images
            },
            rounds=2,
        )
    )


def test_images_to_svm(grow: Grow, num_images: Sequence[int]) -> None:
    latents, labels = clouds(max(num_images))
    grow(
        Growth(
            work="SVM fit",
            unit="images",
            calls={
                num: seconds_of(lambda num=num: fit_table(latents[:num], labels[:num], SvmConfig()))
                for num in num_images
            },
            rounds=2,
        )
    )


def test_images_to_labels(grow: Grow, num_images: Sequence[int]) -> None:
    num_fitted = num_images[1]
    latents, labels = clouds(max(num_images))
    table = fit_table(latents[:num_fitted], labels[:num_fitted], SvmConfig())
    grow(
        Growth(
            work="SVM predict",
            unit="images",
            calls={
                num: seconds_of(lambda num=num: predict(table, latents[:num])) for num in num_images
            },
            rounds=ROUNDS,
            note=f"{len(table.support_vectors):,} support vectors",
        )
    )


@pytest.mark.usefixtures("as_for_training")
def test_batch_of_a_training_step(grow: Grow, is_quick: bool) -> None:
    model, sizes = (SMALL, (4, 8)) if is_quick else (REFERENCE, BATCH_SIZES)
    grow(
        Growth(
            work="training step",
            unit="batch",
            calls={size: _seconds_of_step(model, size) for size in sizes},
            rounds=ROUNDS,
            note=PRECISION,
        )
    )


@pytest.mark.usefixtures("as_for_training")
def test_latent_dimensions_of_a_training_step(grow: Grow, is_quick: bool) -> None:
    batch_size, sizes = (4, (2, 3)) if is_quick else (128, LATENT_DIMS)
    widths = SMALL if is_quick else REFERENCE
    models = {size: replace(widths, latent_dim=size) for size in sizes}
    grow(
        Growth(
            work="training step",
            unit="latent dimensions",
            calls={size: _seconds_of_step(model, batch_size) for size, model in models.items()},
            rounds=ROUNDS,
            note=f"batch {batch_size}, {PRECISION}",
        )
    )


def test_processes_of_a_training_epoch(grow: Grow, is_quick: bool, tmp_path: Path) -> None:
    """Each start is a launcher's, with whatever that costs left out."""
    for package in ("jsonargparse", "PIL"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    if torch.cuda.is_available() and torch.cuda.device_count() < max(NUM_PROCESSES):
        pytest.skip(f"{torch.cuda.device_count()} GPU for {max(NUM_PROCESSES)} processes")
    sizes, flags = (NUM_PROCESSES[1:], QUICK_FLAGS) if is_quick else (NUM_PROCESSES, FLAGS)
    grow(
        Growth(
            work="training epoch",
            unit="processes",
            calls={
                size: lambda size=size: _seconds_of_epoch(tmp_path / str(size), size, flags)
                for size in sizes
            },
            rounds=2,
            note=" ".join(flags),
        )
    )


def _seconds_of_step(model: ModelConfig, batch_size: int) -> Callable[[], float]:
    num_steps = NUM_STEPS["cuda" if torch.cuda.is_available() else "cpu"]
    training = start_training(model, batch_size, num_steps, precision=PRECISION)
    epoch = epochs_of(training)
    epoch()  # the first records the step, or fills the caches
    timed = seconds_of(epoch)
    return lambda: timed() / num_steps


def _seconds_of_epoch(run: Path, num_processes: int, flags: Sequence[str]) -> float:
    """The faster of two epochs."""
    shutil.rmtree(run, ignore_errors=True)
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    launcher += ["--config_file", str(ROOT / "accelerate_config.yaml"), "--main_process_port", "0"]
    launcher += ["--num_processes", str(num_processes), str(ROOT / "vaekit" / "train.py")]
    command = [*launcher, "--run", str(run), "--epochs", "2", *flags]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return float(min(row["seconds"] for row in rows[1:]))
