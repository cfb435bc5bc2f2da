"""Arrays of images that a person hands over: what they must be, and how a model takes them."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.config import IN_MEMORY, DataConfig, parse_value_range
from vaekit.errors import UserError
from vaekit.images.pixels import ImageShape

_BYTE = 255


def planes(images: NDArray[Any], shape: ImageShape, data: DataConfig) -> NDArray[np.uint8]:
    """`images` as [N, C, H, W], for a model of `shape` that was trained on images as of `data`.

    They are uint8 [N, C, H, W] or [N, H, W, C], and with one channel [N, H, W], too. Raises
    `UserError` for other values and sizes, and says what to pass: nothing is guessed, since what
    a model says of images in another range looks sound and is wrong.
    """
    channels, height, width = shape
    require_bytes(images, data)
    if images.shape[1:] == shape:
        return images
    if images.shape[1:] == (height, width, channels):
        return images.transpose(0, 3, 1, 2)
    if images.shape[1:] == (height, width) and channels == 1:
        return images[:, None]
    if images.shape in (shape, (height, width, channels), (height, width)):
        raise UserError(
            f"images: the shape {[*images.shape]} of a single one, expected {_shapes(shape)}; "
            f"give images[None]"
        )
    raise UserError(
        f"images: the shape {[*images.shape]}, expected {_shapes(shape)}; resize them, or give "
        f"image files, which are prepared as those were that the run was trained on"
    )


def settings_of(images: Any, data: DataConfig) -> DataConfig:
    """`data` for a set that is these arrays: their own size, and that they lie nowhere.

    Raises `UserError` for arrays that are no images, uint8 [N, H, W], [N, H, W, C] or [N, C, H, W].
    """
    if data.name not in ("arrays", DataConfig.name):
        raise UserError(
            f"--data.name {data.name}: images are given as arrays; leave one of the two out"
        )
    if not isinstance(images, np.ndarray):
        raise UserError(
            f"images: of the type {type(images).__name__}, expected a NumPy array; give "
            f"numpy.asarray(images)"
        )
    from vaekit.images.arrays import channels_first  # with it comes Pillow

    require_bytes(images, data)
    height, width = channels_first(images, "images", IN_MEMORY).shape[2:]
    return replace(data, name="arrays", root=IN_MEMORY, image_size=f"{height},{width}")


def require_bytes(images: NDArray[Any], data: DataConfig) -> None:
    """Raise `UserError` for an array that is empty or not uint8, with what makes it so."""
    if images.size == 0:
        raise UserError(
            f"images: an array of the shape {[*images.shape]} holds none; give one or more"
        )
    if images.dtype == np.uint8:
        return
    given = f"images: {images.dtype}"
    if images.dtype.kind == "b":
        raise UserError(f"{given}, expected uint8 from 0 to 255; give 255 * images.astype('uint8')")
    if images.dtype.kind not in "iuf":
        raise UserError(f"{given}, expected uint8 from 0 to 255; give such an array")
    if not np.isfinite(images).all():
        raise UserError(
            f"{given} with NaN or infinite values, expected uint8 from 0 to 255; replace them"
        )
    low, high = images.min(), images.max()
    raise UserError(
        f"{given} from {low:.6g} to {high:.6g}, expected uint8 from 0 to 255; give "
        f"{_remedy(images, data)}"
    )


def _remedy(images: NDArray[Any], data: DataConfig) -> str:
    """Python that makes `images`, which are finite numbers, those that are expected."""
    low, high = float(images.min()), float(images.max())
    is_byte = data.value_range in ("auto", f"0,{_BYTE}")
    if data.name != "folder" and not is_byte:  # the run itself was trained on such arrays
        black, white = parse_value_range(data.value_range)
        return (
            f"((images - {black:g}) / {white - black:g} * 255).clip(0, 255).round().astype('uint8')"
        )
    if images.dtype.kind == "f" and low >= 0 and high <= 1:
        return "(255 * images).round().astype('uint8')"
    if low >= 0 and high <= _BYTE:
        rounded = ".round()" if images.dtype.kind == "f" else ""
        return f"images{rounded}.astype('uint8')"
    return "them scaled so that black is 0 and white is 255, as images.astype('uint8')"


def _shapes(shape: ImageShape) -> str:
    """The shapes of arrays that a model of `shape` takes."""
    channels, height, width = shape
    grey = f"[N, {height}, {width}], " if channels == 1 else ""
    return f"{grey}[N, {height}, {width}, {channels}] or [N, {channels}, {height}, {width}]"
