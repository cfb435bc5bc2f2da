"""Image files made into arrays of one shape."""

import os
import struct
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from vaekit.errors import UserError, some_of
from vaekit.images.preparation import RESIZE_FILTER

# Pillow goes by content, not by name; its rarer decoders hold surprises (EPS runs Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

_RESAMPLING = Image.Resampling[RESIZE_FILTER.upper()]
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# What Pillow raises for a file that is damaged, no image, or absurdly large.
UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,  # PNG chunks, EXIF headers
    ValueError,  # PGM and PPM that hold too little, senseless sizes
    IndexError,
    struct.error,
    TypeError,  # TIFF tags of another type than they should be
    OverflowError,  # and beyond what their type holds
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

T = TypeVar("T")
R = TypeVar("R")


def prepare_files(paths: Sequence[Path], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Image files as [N, C, H, W], prepared as those of a folder are, for a model of `shape`.

    The whole image is resized, its aspect not kept; EXIF orientation is applied. Raises
    `UserError` that lists the files that can't be read.
    """
    pixels: NDArray[np.uint8] = np.empty((len(paths), *shape), np.uint8)
    unreadable = decode_files(paths, pixels, description="reading")
    if unreadable:
        raise UserError(
            f"{some_of([str(paths[i]) for i in unreadable])}: no such file, or not a whole image "
            f"of a known format ({', '.join(FORMATS)}); leave it out or replace it"
        )
    return pixels


def common_channels(paths: Sequence[Path]) -> int:
    """Channels that hold every image: grey or colour, plus alpha where one has it."""

    def colour_and_alpha(path: Path) -> tuple[bool, bool]:
        try:
            with open_image(path) as image:
                if _is_deep(image):
                    return False, False
                has_alpha = image.getbands()[-1] == "A" or "transparency" in image.info
                return image.mode not in ("1", "L", "LA"), has_alpha
        except UNREADABLE:
            return False, False

    found = _in_threads(colour_and_alpha, paths, "reading headers")
    has_colour, has_alpha = np.any(found, axis=0).tolist()
    return (3 if has_colour else 1) + int(has_alpha)


def open_image(path: Path, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Read the header of an image file. Raises one of `UNREADABLE`, as decoding it later may."""
    if not path.is_file():  # a pipe would keep us waiting
        raise OSError("no file")
    return Image.open(path, formats=formats)


def decode_files(paths: Sequence[Path], pixels: NDArray[np.uint8], description: str) -> list[int]:
    """Fill `pixels` [N, C, H, W] from N files; the indices of those that can't be read."""
    channels, height, width = pixels.shape[1:]

    def decode(index: int) -> bool:
        try:
            image = _read(paths[index], (channels, height, width))
        except UNREADABLE:
            return False
        pixels[index] = image
        return True

    readable = _in_threads(decode, range(len(paths)), description)
    return [index for index, success in enumerate(readable) if not success]


def fit(image: Image.Image, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """An image of 8 bits a channel as [C, H, W], resized whole, its aspect not kept."""
    channels, height, width = shape
    fitted = image.convert(_MODES[channels]).resize((width, height), _RESAMPLING)
    return np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)


def _read(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    with open_image(path) as file:
        file.getexif()
        file.info.pop("exif", None)  # or Pillow writes it anew and stumbles over odd entries
        return fit(_to_8_bit(ImageOps.exif_transpose(file)), shape)


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


def _to_8_bit(image: Image.Image) -> Image.Image:
    if not _is_deep(image):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError("expected integers of at most 16 bits")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _in_threads(function: Callable[[T], R], items: Sequence[T], description: str) -> list[R]:
    """The results in order, with a progress bar where standard error is a terminal.

    Pillow releases the interpreter's lock while it decodes and resizes.
    """
    with warnings.catch_warnings(), ThreadPool(os.cpu_count()) as pool:
        warnings.simplefilter("ignore", UserWarning)  # Pillow's remarks on odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        results = pool.imap(function, items, chunksize=16)
        bar = tqdm(results, description, len(items), unit=" images", disable=None)
        return list(bar)
