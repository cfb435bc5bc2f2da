"""Training against other ways to train the same model: same weights at the start, same batch."""

from collections.abc import Callable
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.hardware import step_limit
from bench.interleaved import Contest
from bench.plain_loops import LEARNING_RATE, Epoch, synchronise, train_on_device, train_with_loader
from vaekit.config import ModelConfig, TrainConfig
from vaekit.images import Images, ImageSet
from vaekit.model import VAE
from vaekit.processes import start_accelerator
from vaekit.progress import Progress
from vaekit.run_folder import RunFolder
from vaekit.train import run_epoch, set_up

Compete = Callable[[Contest], None]

NUM_STEPS = {"cpu": 4, "cuda": 50}  # in an epoch, so that a loader's start does not count
ROUNDS = 8
SMALL = ModelConfig(latent_dim=3, conv_channels=(2, 3), hidden_dims=(16, 8))

# Order and noise differ. From the same weights and with the same update the mean losses of an
# epoch don't differ by more.
TOLERANCE = 0.01

batch_sizes = pytest.mark.parametrize("batch_size", [64, 128])
all_threads = pytest.mark.parametrize(
    "threads", [torch.get_num_threads()], indirect=True, ids="threads={}".format
)


class Corner(NamedTuple):
    """vaekit's side of a contest, and what the other side needs."""

    ours: Epoch
    vae: VAE  # a copy, as it was before the first step
    pixels: NDArray[np.uint8]
    num_steps: int
    limit: float


@pytest.fixture
def corner(pytestconfig: pytest.Config, threads: int, tmp_path: Path, batch_size: int) -> Corner:
    config = TrainConfig(
        run=str(tmp_path),
        model=SMALL if pytestconfig.getoption("benchmark_disable") else ModelConfig(),
        epochs=1000,  # far more than are run: the learning rate stays where it is
        batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        warmup_steps=0,
    )
    accelerator = start_accelerator(config)
    num_steps = NUM_STEPS[accelerator.device.type]
    pixels = _make_up(num_steps * batch_size)
    images = Images(ImageSet(pixels, None), ImageSet(pixels[:1], None), ())
    training = set_up(config, accelerator, RunFolder(tmp_path), images)
    vae = deepcopy(training.vae)
    progress = Progress("training", 0, "images", visible=False)
    numbers = count(1)

    def epoch() -> float:
        result = run_epoch(training, next(numbers), progress)
        synchronise(accelerator.device)
        return result.losses.loss

    return Corner(epoch, vae, pixels, num_steps, step_limit(vae, batch_size))


@all_threads
@batch_sizes
def test_against_the_reference(compete: Compete, corner: Corner, batch_size: int) -> None:
    pytest.importorskip("torchvision")
    theirs = train_with_loader(corner.vae, corner.pixels, batch_size)
    compete(_contest(corner, batch_size, "reference's loop", theirs))


@all_threads
@batch_sizes
def test_against_an_eager_loop_on_the_device(
    compete: Compete, corner: Corner, batch_size: int
) -> None:
    theirs = train_on_device(corner.vae, corner.pixels, batch_size)
    compete(_contest(corner, batch_size, "resident eager loop", theirs))


@all_threads
@batch_sizes
def test_against_pythae(
    compete: Compete,
    corner: Corner,
    batch_size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("pythae", reason="pythae is not installed (vaekit[peers])")
    # It sets these two, which would make a launcher's child of this process.
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "12345")
    from bench.pythae_trainer import train_with_pythae

    theirs = train_with_pythae(corner.vae, corner.pixels, batch_size, tmp_path / "pythae")
    compete(_contest(corner, batch_size, "pythae BaseTrainer", theirs))


def _contest(corner: Corner, batch_size: int, peer: str, theirs: Epoch) -> Contest:
    return Contest(
        work=f"training step, batch {batch_size}",
        ours=corner.ours,
        peer=peer,
        theirs=theirs,
        agree=_similar,
        rounds=ROUNDS,
        device=next(corner.vae.parameters()).device.type,
        repeats=corner.num_steps,
        limit=corner.limit,
    )


def _similar(ours: float, theirs: float) -> None:
    assert ours == pytest.approx(theirs, rel=TOLERANCE)


def _make_up(num_images: int) -> NDArray[np.uint8]:
    """Noisy versions of one image: the loss falls fast, and alike in whatever order they come."""
    generator = np.random.default_rng(0)
    template = generator.integers(0, 256, (1, 28, 28))
    noise = generator.integers(-64, 65, (num_images, 1, 28, 28))
    pixels: NDArray[np.uint8] = np.clip(template + noise, 0, 255).astype(np.uint8)
    return pixels
