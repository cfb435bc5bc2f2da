"""scikit-learn's handwritten digits, which need no download."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaekit.images.decode import fit
from vaekit.images.splits import FIXED_SEED, Split, split


class Digits(NamedTuple):
    """All of them, and the fifth to test on."""

    pixels: NDArray[np.uint8]  # [N, 1, H, W]
    labels: NDArray[np.int64]  # [N]
    fifth: Split


@cache  # a process that reads them once reads them often: each part of a run does
def read_digits(size: tuple[int, int]) -> Digits:
    """The 1797 digits, resized from 8x8 to `size`; every run holds out the same fifth."""
    from sklearn.datasets import load_digits  # seconds to import

    digits = load_digits()
    scaled = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 8x8, values 0 to 16
    shape = (1, *size)
    pixels = np.stack([fit(Image.fromarray(image), shape) for image in scaled])
    labels = digits.target.astype(np.int64)
    return Digits(pixels, labels, split(labels, round(0.2 * len(labels)), FIXED_SEED))
