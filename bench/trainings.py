"""Training as `vaekit train` does it, without a run's files: for benchmarks and gates."""

from collections import deque
from itertools import count

import torch
from accelerate.state import AcceleratorState

from bench.made_up import noisy_images
from bench.plain_loops import LEARNING_RATE, Epoch, Precision, synchronise
from vaekit.config import DataConfig, MixedPrecision, ModelConfig, TrainConfig
from vaekit.images.image_set import Images, ImageSet
from vaekit.models.vae import ARCHITECTURES, VAE
from vaekit.training.loop import train_epoch
from vaekit.training.ranks import start_accelerator
from vaekit.training.state import Training

IMAGE_SHAPE = (1, 28, 28)
SMALL = ModelConfig(latent_dim=3, conv_channels=(2, 3), hidden_dims=(16, 8))

# What vaekit takes by itself is the last.
PRECISIONS: tuple[Precision, ...] = ("float32",)
if torch.cuda.is_available():
    PRECISIONS = ("float32", "bf16")

_MIXED: dict[Precision, MixedPrecision] = {"float32": "no", "bf16": "bf16", "fp16": "fp16"}


def models(*, tiny: bool) -> dict[str, ModelConfig]:
    """A model of each architecture, as large as people train it or tiny."""
    with torch.device("meta"):
        reference = SMALL if tiny else VAE().config
    width = {"width": 4} if tiny else {}
    others = [name for name in ARCHITECTURES if name != "reference"]
    return {"reference": reference} | {
        name: ModelConfig(architecture=name, **width) for name in others
    }


def start_training(
    model: ModelConfig,
    batch_size: int,
    num_steps: int,
    *,
    precision: Precision = "float32",
    resident_limit: int | None = None,
) -> Training:
    """A run before its first step, on `num_steps` batches of made-up images."""
    config = TrainConfig(
        data=DataConfig(resident_limit=resident_limit),
        model=model,
        epochs=1000,  # far more than are run: the learning rate stays where it is
        batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        warmup_steps=0,
        mixed_precision=_MIXED[precision],
    )
    AcceleratorState._reset_state()  # it keeps the precision of the first for the whole process
    pixels = noisy_images(num_steps * batch_size)
    images = Images(ImageSet(pixels, None), ImageSet(pixels[:1], None), ())
    return Training(config, images, start_accelerator(config))


def epochs_of(training: Training) -> Epoch:
    """One pass over the images after the other, each with all its work done at its end."""
    numbers = count(1)

    def epoch() -> float:
        deque(train_epoch(training, next(numbers)), maxlen=0)
        synchronise(training.accelerator.device)
        return training.read_losses().loss

    return epoch
