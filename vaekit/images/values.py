"""What a pixel of a file says: values of more than 8 bits, and transparency in all its guises."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SAMPLE_FORMAT = 339  # the TIFF tag; 2 is signed


class SampleFormat(NamedTuple):
    """How the values lie in a file, of which Pillow tells nothing once they are read."""

    is_signed_byte: bool = False
    is_unsigned_32: bool = False
    loses_depth: bool = False  # colour of 16 bits, of which Pillow gives the upper 8
    grey_scale: int = 1  # by which Pillow multiplies values of fewer than 8 bits


def sample_format(image: Image.Image) -> SampleFormat:
    """Of an image that is opened and not loaded yet."""
    tiles = getattr(image, "tile", None) or ()
    arguments = tiles[0][3] if tiles else ""
    raw = str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)
    tags: Any = getattr(image, "tag_v2", {})
    is_signed = tags.get(_SAMPLE_FORMAT) == (2,)
    return SampleFormat(
        is_signed_byte=is_signed and image.mode == "L",
        is_unsigned_32=image.mode == "I" and raw in ("I;32N", "I;32BN", "I;32", "I;32B"),
        loses_depth=";16" in raw and not image.mode.startswith(("I", "F")),
        grey_scale={"L;2": 85, "L;4": 17, "1": 255}.get(raw, 1),
    )


def is_deep(image: Image.Image, sample: SampleFormat) -> bool:
    """Whether its values are other than 0 to 255."""
    return image.mode.startswith(("I", "F")) or sample.is_signed_byte


def deep_values(image: Image.Image, sample: SampleFormat) -> NDArray[Any]:
    """The values [H, W] as the file means them. Raises `ValueError` where one is not finite."""
    values = np.asarray(image)
    if sample.is_signed_byte:
        return values.view(np.int8)
    if sample.is_unsigned_32:
        return values.view(np.uint32)
    if image.mode == "F" and not np.isfinite(values).all():
        raise ValueError("holds NaN or infinite values")
    return values


def to_8_bit(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Values from `low` to `high` as 0 to 255; what lies beyond is clipped."""
    shares = (np.clip(values.astype(np.float64), low, high) - low) / (high - low)
    return np.rint(shares * 255).astype(np.uint8)


def holds_alpha(image: Image.Image) -> bool:
    """Whether it may be transparent somewhere, in any of the ways in which formats say so."""
    return image.getbands()[-1] in ("A", "a") or "transparency" in image.info


def with_alpha(image: Image.Image, sample: SampleFormat) -> Image.Image:
    """An image of 8 bits that `holds_alpha` as LA or RGBA."""
    if image.mode in ("LA", "RGBA"):
        return image
    if image.mode in ("1", "L", "RGB") and (key := image.info.get("transparency")) is not None:
        opaque = image.convert("L") if image.mode == "1" else image
        if sample.loses_depth:
            key = tuple(value >> 8 for value in key)
        elif isinstance(key, int):
            key = min(key * sample.grey_scale, 255)
        values = np.asarray(opaque).reshape(image.height, image.width, -1)
        alpha = np.where((values == key).all(axis=-1), 0, 255).astype(np.uint8)
        result = opaque.copy()
        result.info.pop("transparency")
        result.putalpha(Image.fromarray(alpha))
        return result
    return image.convert("LA" if image.mode == "La" else "RGBA")
