"""The shape of images, their pixels as floats, and back, and how far two images are apart."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # who only wants a shape shall not wait for PyTorch
    from torch import Tensor

ImageShape = tuple[int, int, int]  # channels, height, width


def as_floats(pixels: "Tensor") -> "Tensor":
    """uint8 pixels as float32 in [0, 1]."""
    return pixels.float().div_(255)


def as_pixels(images: "Tensor") -> NDArray[np.uint8]:
    """Images in [0, 1] as uint8 on the CPU: the inverse of `as_floats`."""
    pixels: NDArray[np.uint8] = images.mul(255).round().byte().cpu().numpy()
    return pixels


def psnr(mse: float) -> float | None:
    """In dB, of a mean squared error of values in [0, 1]; None for no error at all."""
    return -10 * math.log10(mse) if mse > 0 else None
