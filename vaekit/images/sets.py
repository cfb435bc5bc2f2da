"""Image sets: each is one uint8 array [N, C, H, W], to train on and to test on.

Pillow is imported by the sets that need it: to train on images at hand takes none.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.config import DataConfig
from vaekit.errors import UserError
from vaekit.images.idx import IDX_SETS, read_idx_set
from vaekit.images.splits import FIXED_SEED, split

_Which = slice | NDArray[np.int64]


class ImageSet(NamedTuple):
    """Images with their labels."""

    pixels: NDArray[np.uint8]  # [N, C, H, W]; may be a memory map, whose file no write reaches
    labels: NDArray[np.int64] | None  # [N], indices into the class names


@dataclass(frozen=True)
class Images:
    """What a run trains on and what it is tested on."""

    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]  # () for an unlabelled set

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    def sha256(self) -> str:
        """The sha256 over pixels and labels of both sets: equal images, equal order."""
        digest = hashlib.sha256()
        for array in (*self.train, *self.test):
            if array is None:
                digest.update(b"unlabelled")
            else:
                digest.update(f"{array.dtype.str} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).reshape(-1).data)
        return digest.hexdigest()


def load_images(config: DataConfig, seed: int) -> Images:
    """The image set that `config` names, downloaded or decoded where that is still to be done.

    `seed` splits a folder that has no train/ and test/ of its own; nothing else depends on it.
    With `holdout` the test set is that many images of the training set, a fixed choice with each
    class in proportion, and the real test set is left alone. `limit` comes last and keeps the
    first images of each set; no set is sorted by class, so the first are a fair choice (the
    images of a folder are put in one fixed shuffled order).

    Raises `UserError` for files that are missing, damaged or don't fit together.
    """
    if config.name == "digits":
        images = _load_digits(config.image_size)
    elif config.name == "folder":
        images = _load_folder(config, seed)
    else:
        images = _load_idx_set(config)
    if config.holdout is not None:
        images = _hold_out(images, config.holdout)
    first = slice(config.limit)
    return Images(_take(images.train, first), _take(images.test, first), images.class_names)


def _load_digits(image_size: int) -> Images:
    from PIL import Image
    from sklearn.datasets import load_digits  # seconds to import, and no other set needs it

    from vaekit.images.decode import fit

    digits = load_digits()
    scaled = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 8x8, values 0 to 16
    shape = (1, image_size, image_size)
    pixels = np.stack([fit(Image.fromarray(image), shape) for image in scaled])
    labels = digits.target.astype(np.int64)
    fifth = split(labels, round(0.2 * len(labels)), FIXED_SEED)
    return _divide(ImageSet(pixels, labels), fifth.kept, fifth.held_out, tuple("0123456789"))


def _load_folder(config: DataConfig, seed: int) -> Images:
    from vaekit.images.cache import read_folder

    class_names, pixels, labels, num_train = read_folder(config, seed)
    every_image = ImageSet(pixels, labels)
    return _divide(every_image, slice(num_train), slice(num_train, None), class_names)


def _load_idx_set(config: DataConfig) -> Images:
    arrays = read_idx_set(config)
    return Images(
        ImageSet(arrays.train_pixels[:, None], arrays.train_labels.astype(np.int64)),
        ImageSet(arrays.test_pixels[:, None], arrays.test_labels.astype(np.int64)),
        IDX_SETS[config.name].class_names,
    )


def _hold_out(images: Images, num_held_out: int) -> Images:
    pixels, labels = images.train
    if num_held_out >= len(pixels):
        raise UserError(
            f"--data.holdout {num_held_out}: the training set has {len(pixels)} images, at least "
            f"one of which must be left; give at most {len(pixels) - 1}"
        )
    classes = np.zeros(len(pixels), np.int64) if labels is None else labels
    chosen = split(classes, num_held_out, FIXED_SEED)
    return _divide(images.train, chosen.kept, chosen.held_out, images.class_names)


def _divide(images: ImageSet, train: _Which, test: _Which, class_names: tuple[str, ...]) -> Images:
    return Images(_take(images, train), _take(images, test), class_names)


def _take(images: ImageSet, which: _Which) -> ImageSet:
    return ImageSet(images.pixels[which], None if images.labels is None else images.labels[which])
