"""Which files are images: what Pillow knows by content, but for decoders that hold surprises."""

import os
import struct
import warnings
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

# EPS runs Ghostscript, WMF the system's renderer; the others are no images, or none that Pillow
# can decode by itself, and IM it is about to forget.
REFUSED = frozenset(
    ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC", "FPX", "MIC", "PDF", "WAL", "IM")
)
REFUSED_SUFFIXES = frozenset(
    (".eps", ".ps", ".pdf", ".wmf", ".emf", ".h5", ".hdf", ".grib", ".bufr", ".mpg", ".mpeg")
)
# Those of the first version, whose runs go by suffix: what else lay in a folder was no image.
FIRST_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
FIRST_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm",
)  # fmt: skip

# What Pillow raises for a file that is damaged, no image, or absurdly large.
UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,  # PNG chunks, EXIF headers
    ValueError,  # PGM and PPM that hold too little, senseless sizes
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
    TypeError,  # TIFF tags of another type than they should be
    RuntimeError,  # damaged AVIF; NotImplementedError, which it covers: DDS of unknown layouts
    MemoryError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

NO_IMAGE = "no image of a known format"

ImageFile = Path | BytesIO  # where it lies, or what is in it

R = TypeVar("R")


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of what is read, the commonest first: others are tried in vain before."""
    Image.init()
    return (*FIRST_FORMATS, *(name for name in Image.ID if name not in REFUSED | {*FIRST_FORMATS}))


@cache
def suffixes() -> frozenset[str]:
    """Of names that say that a file is such an image."""
    known = set(formats())
    return frozenset(
        suffix for suffix, name in Image.registered_extensions().items() if name in known
    )


def open_image(file: ImageFile, only: tuple[str, ...] | None = None) -> Image.Image:
    """Read the header of an image file. Raises one of `UNREADABLE`, as decoding it later may."""
    if isinstance(file, Path) and not file.is_file():  # a pipe would keep us waiting
        raise OSError("no file")
    return Image.open(file, formats=only or formats())


def reason(error: BaseException) -> str:
    """Why a file can't be read, in a few words without its path."""
    if isinstance(error, UnidentifiedImageError):
        return NO_IMAGE
    if isinstance(error, OSError) and error.errno is not None:
        return str(error.strerror)
    return " ".join(str(error).split())[:100] or type(error).__name__


def in_threads(
    function: Callable[[int], R],
    count: int,
    description: str,
    advance: Callable[[int], None] | None = None,
) -> list[R]:
    """The results of 0 to `count` in order, with a progress bar where standard error is a terminal.

    Where there is somebody to `advance`, that is told of each one that is done, and there is no
    bar. Pillow releases the interpreter's lock while it decodes and resizes.
    """
    num_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # which share the cores
    num_threads = max(1, (os.cpu_count() or 1) // num_ranks)
    with warnings.catch_warnings(), ThreadPool(num_threads) as pool:
        warnings.simplefilter("ignore", UserWarning)  # Pillow's remarks on odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        results = pool.imap(function, range(count), chunksize=16)
        if advance is None:
            return list(tqdm(results, description, count, unit=" images", disable=None))
        done = []
        for result in results:
            done.append(result)
            advance(1)
        return done
