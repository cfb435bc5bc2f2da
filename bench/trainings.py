"""Training as `vaekit train` does it, without a run's files: for benchmarks and gates."""

from itertools import count
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

from bench.made_up import noisy_images
from bench.plain_loops import LEARNING_RATE, Epoch, Precision, synchronise
from vaekit.config import DataConfig, MixedPrecision, ModelConfig, TrainConfig
from vaekit.images.sets import Images, ImageSet
from vaekit.progress import Progress
from vaekit.runs.folder import RunFolder
from vaekit.runs.resume import Training
from vaekit.train import run_epoch, set_up
from vaekit.training.interruption import Interruption
from vaekit.training.ranks import start_accelerator

SMALL = ModelConfig(latent_dim=3, conv_channels=(2, 3), hidden_dims=(16, 8))

# Which of the two vaekit takes by itself depends on the launcher; a CPU seldom has bf16.
PRECISIONS: tuple[Precision, ...] = ("float32",)
if torch.cuda.is_available():
    PRECISIONS = ("float32", "bf16")

_MIXED: dict[Precision, MixedPrecision] = {"float32": "no", "bf16": "bf16"}


def start_training(
    folder: Path,
    model: ModelConfig,
    batch_size: int,
    num_steps: int,
    *,
    precision: Precision = "float32",
    resident_limit: int | None = None,
) -> Training:
    """A run in `folder` before its first step, on `num_steps` batches of made-up images."""
    config = TrainConfig(
        run=str(folder),
        data=DataConfig(resident_limit=resident_limit),
        model=model,
        epochs=1000,  # far more than are run: the learning rate stays where it is
        batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        warmup_steps=0,
        mixed_precision=_MIXED[precision],
    )
    AcceleratorState._reset_state()  # of the training before, which may have another precision
    pixels = noisy_images(num_steps * batch_size)
    images = Images(ImageSet(pixels, None), ImageSet(pixels[:1], None), ())
    return set_up(config, start_accelerator(config), RunFolder(folder), images, Interruption())


def epochs_of(training: Training) -> Epoch:
    """One pass over the images after the other, each with all its work done at its end."""
    progress = Progress("training", 0, "images", visible=False)
    numbers = count(1)

    def epoch() -> float:
        losses = run_epoch(training, next(numbers), progress)
        synchronise(training.accelerator.device)
        return losses.loss

    return epoch
