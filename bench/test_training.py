"""Training against other ways to train the same model: same weights at the start, same batch."""

from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.conftest import Compete, all_threads
from bench.defaults import library_defaults
from bench.hardware import TRIES_IN_TURN, StepLimit, largest_activation
from bench.interleaved import Contest
from bench.plain_loops import Epoch, Precision, train_on_device, train_with_loader
from bench.trainings import PRECISIONS, epochs_of, models, start_training
from vaekit.config import ModelConfig
from vaekit.models.vae import ARCHITECTURES, VAE
from vaekit.training.state import Training

NUM_STEPS = {"cpu": 4, "cuda": 50}  # in an epoch, so that a loader's start does not count
ROUNDS = 8

# Order and noise differ, the peers' from run to run. From the same weights and with the same update
# the mean losses of an epoch were seen to differ by 0.016.
TOLERANCE = 0.03

batch_sizes = pytest.mark.parametrize("batch_size", [64, 128])
precisions = pytest.mark.parametrize("precision", PRECISIONS)


class Corner(NamedTuple):
    """vaekit's side of a contest, and what the other side needs."""

    training: Training
    vae: VAE  # a copy, as it was before the first step
    pixels: NDArray[np.uint8]
    batch_size: int
    precision: Precision


@pytest.fixture
def corner(
    as_for_training: None,
    threads: int,
    model: ModelConfig,
    batch_size: int,
    precision: Precision,
    is_compiled: bool,
    is_augmented: bool,
) -> Corner:
    num_steps = NUM_STEPS["cuda" if torch.cuda.is_available() else "cpu"]
    training = start_training(
        model,
        batch_size,
        num_steps,
        precision=precision,
        compile=is_compiled,
        augment=is_augmented,
    )
    pixels = training.images.train.pixels
    theirs = deepcopy(training.vae).to(memory_format=torch.contiguous_format)
    return Corner(training, theirs, pixels, batch_size, precision)


@pytest.fixture
def architecture() -> str:
    """Where a benchmark asks for no other."""
    return "reference"


@pytest.fixture
def is_compiled() -> bool:
    """Likewise."""
    return False


@pytest.fixture
def is_augmented() -> bool:
    """Likewise."""
    return False


@pytest.fixture
def model(is_quick: bool, architecture: str) -> ModelConfig:
    return models(tiny=is_quick)[architecture]


@all_threads
@batch_sizes
@precisions
def test_against_the_references_loop(compete: Compete, corner: Corner) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    theirs = train_with_loader(corner.vae, corner.pixels, corner.batch_size, corner.precision)
    compete(_contest(corner, "reference's loop", theirs))


@all_threads
@batch_sizes
@precisions
def test_against_an_eager_loop_on_the_device(compete: Compete, corner: Corner) -> None:
    theirs = train_on_device(corner.vae, corner.pixels, corner.batch_size, corner.precision)
    compete(_contest(corner, "resident eager loop", theirs))


@all_threads
@batch_sizes
@precisions
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_against_pythae(
    compete: Compete, corner: Corner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _against_pythae(compete, corner, tmp_path, monkeypatch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="--compile needs CUDA")
@all_threads
@pytest.mark.parametrize("batch_size", [128])
@pytest.mark.parametrize("precision", PRECISIONS[-1:])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("is_compiled", [True])
def test_compiled_against_pythae(
    compete: Compete, corner: Corner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _against_pythae(compete, corner, tmp_path, monkeypatch)


def _against_pythae(
    compete: Compete, corner: Corner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pythae", reason="pythae is not installed (vaekit[peers])")
    # It sets these two, which would make a launcher's child of this process.
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "12345")
    from bench.pythae_trainer import train_with_pythae

    theirs = train_with_pythae(
        corner.vae, corner.pixels, corner.batch_size, corner.precision, tmp_path / "pythae"
    )
    compete(_contest(corner, "pythae BaseTrainer", theirs))


@all_threads
@pytest.mark.parametrize("batch_size", [128])
@precisions
@pytest.mark.parametrize("architecture", ["conv"])
@pytest.mark.parametrize("is_augmented", [True])
def test_against_the_references_architecture(
    compete: Compete, corner: Corner, is_quick: bool
) -> None:
    """Of two models, each trained as vaekit trains it on MNIST; the losses are their own."""
    theirs = start_training(
        models(tiny=is_quick)["reference"],
        corner.batch_size,
        corner.training.steps_per_epoch,
        precision=corner.precision,
    )
    contest = _contest(corner, "reference's architecture", epochs_of(theirs))
    compete(contest._replace(agree=_finite, theirs_within=nullcontext))


@all_threads
@pytest.mark.parametrize("batch_size", [128])
@pytest.mark.parametrize("precision", PRECISIONS[-1:])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_images_fetched_in_time(
    compete: Compete, corner: Corner, model: ModelConfig, tmp_path: Path
) -> None:
    """A set in shards, too large for the device, against one that lies there."""
    fetching = start_training(
        model,
        corner.batch_size,
        corner.training.steps_per_epoch,
        precision=corner.precision,
        resident_limit=0,
        shards=tmp_path,
    )
    contest = _contest(corner._replace(training=fetching), "resident", epochs_of(corner.training))
    compete(contest._replace(work=f"{contest.work}, images fetched", theirs_within=nullcontext))


def _contest(corner: Corner, peer: str, theirs: Epoch) -> Contest:
    training, batch_size, precision = corner.training, corner.batch_size, corner.precision
    device = training.accelerator.device
    model = training.vae.config.architecture
    step = "training step" if model == "reference" else f"training step of {model}"
    if training.config.compile:
        step = f"compiled {step}"
    work = f"{step}, batch {batch_size}"
    return Contest(
        work=work if precision == "float32" else f"{work}, {precision}",
        ours=epochs_of(training),
        peer=peer,
        theirs=theirs,
        agree=_similar,
        rounds=ROUNDS,
        device=device.type,
        repeats=training.steps_per_epoch,
        limit=partial(StepLimit(training.vae, batch_size, precision).measure, TRIES_IN_TURN),
        theirs_within=partial(
            library_defaults, device, largest_activation(training.vae, batch_size)
        ),
    )


def _similar(ours: float, theirs: float) -> None:
    assert ours == pytest.approx(theirs, rel=TOLERANCE)


def _finite(ours: float, theirs: float) -> None:
    assert np.isfinite([ours, theirs]).all()
