"""Training as `vaekit train` does it, without a run's files: for benchmarks and gates."""

from collections import deque
from itertools import count
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState

from bench.made_up import noisy_images
from bench.plain_loops import LEARNING_RATE, Epoch, Precision, synchronise
from vaekit.config import DataConfig, MixedPrecision, ModelConfig, TrainConfig
from vaekit.images.image_set import Images, ImageSet
from vaekit.images.mapped import Mapped, PixelArray
from vaekit.models.vae import ARCHITECTURES, VAE
from vaekit.training.loop import train_epoch
from vaekit.training.ranks import start_accelerator
from vaekit.training.state import Training

IMAGE_SHAPE = (1, 28, 28)
NUM_SHARDS = 16
SMALL = ModelConfig(latent_dim=3, conv_channels=(2, 3), hidden_dims=(16, 8))

# What vaekit takes by itself is the last.
PRECISIONS: tuple[Precision, ...] = ("float32",)
if torch.cuda.is_available():
    PRECISIONS = ("float32", "bf16")

_MIXED: dict[Precision, MixedPrecision] = {"float32": "no", "bf16": "bf16", "fp16": "fp16"}


def models(*, tiny: bool) -> dict[str, ModelConfig]:
    """A model of each architecture, tiny or as MNIST's number of images has it."""
    with torch.device("meta"):
        reference = SMALL if tiny else VAE().config
    width = {"width": 4} if tiny else {}
    others = [name for name in ARCHITECTURES if name != "reference"]
    return {"reference": reference} | {
        name: ModelConfig(name, "bernoulli", block_bottleneck=True, **width) for name in others
    }


def start_training(
    model: ModelConfig,
    batch_size: int,
    num_steps: int,
    *,
    precision: Precision = "float32",
    resident_limit: int | None = None,
    shards: Path | None = None,
    compile: bool = False,
    augment: bool = False,
) -> Training:
    """A run before its first step, on `num_steps` batches of made-up images.

    They are in memory, or files in the folder `shards`. Peers don't augment them.
    """
    config = TrainConfig(
        data=DataConfig(resident_limit=resident_limit),
        model=model,
        epochs=1000,  # far more than are run: the learning rate stays where it is
        batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        warmup_steps=0,
        mixed_precision=_MIXED[precision],
        compile=compile,
        augment=augment,
        temperature=1.0,  # as peers have it
    )
    AcceleratorState._reset_state()  # it keeps the precision of the first for the whole process
    pixels: PixelArray = noisy_images(num_steps * batch_size)
    if shards is not None:
        pixels = _in_shards(pixels, shards)
    images = Images(ImageSet(pixels, None), ImageSet(pixels[:1], None), ())
    return Training(config, images, start_accelerator(config))


def _in_shards(pixels: PixelArray, folder: Path) -> Mapped:
    paths = [folder / f"{number}.npy" for number in range(NUM_SHARDS)]
    for path, part in zip(paths, np.array_split(pixels[:], NUM_SHARDS), strict=True):
        np.save(path, part)
    return Mapped([np.load(path, mmap_mode="r") for path in paths], np.arange(len(pixels)))


def epochs_of(training: Training) -> Epoch:
    """One pass over the images after the other, each with all its work done at its end."""
    numbers = count(1)

    def epoch() -> float:
        deque(train_epoch(training, next(numbers)), maxlen=0)
        synchronise(training.accelerator.device)
        return training.read_losses().loss

    return epoch
