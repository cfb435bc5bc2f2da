"""Images and latents to work on where no run is given: as large as MNIST's, and as hard."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_CLASSES = 10
NUM_FEATURES = 20  # mean and log-variance of ten latent dimensions


class Clouds(NamedTuple):
    latents: NDArray[np.float32]  # [N, D]
    labels: NDArray[np.int64]  # [N]


def noisy_images(num_images: int) -> NDArray[np.uint8]:
    """Noisy versions of one image: the loss falls fast, and alike in whatever order they come."""
    generator = np.random.default_rng(0)
    template = generator.integers(0, 256, (1, 28, 28), dtype=np.int16)
    noise = generator.integers(-64, 65, (num_images, 1, 28, 28), dtype=np.int16)
    pixels: NDArray[np.uint8] = np.clip(template + noise, 0, 255).astype(np.uint8)
    return pixels


def clouds(num_points: int, num_classes: int = NUM_CLASSES) -> Clouds:
    """Clouds of points, ten so close that some 6,000 of 40,000 become support vectors.

    As many as MNIST's. The more points, the more it tells that those of a pair of classes lie
    side by side.
    """
    generator = np.random.default_rng(0)
    centres = generator.normal(scale=0.9, size=(num_classes, NUM_FEATURES))
    labels = generator.integers(0, num_classes, num_points)
    points = centres[labels] + generator.normal(size=(num_points, NUM_FEATURES))
    return Clouds(points.astype(np.float32), labels)
