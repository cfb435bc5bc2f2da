"""What the files say before they are decoded, and the settings that follow from it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaekit.config import DataConfig
from vaekit.images.formats import UNREADABLE, ImageFile, in_threads, open_image, reason
from vaekit.images.values import (
    SampleFormat,
    deep_values,
    holds_alpha,
    is_deep,
    sample_format,
    with_alpha,
)

NUM_BORDERS = 256  # opaque images, of all of them, that show on what ground a set is

_BYTE = 255
_OPAQUE = 255
_MIDDLE = 127.5
_LIGHT = 191.25  # three quarters: what is lighter hardly shows on white


class Page(NamedTuple):
    """An image of a file, as far as is needed to choose settings for all."""

    has_colour: bool
    has_alpha: bool
    is_deep: bool = False  # of more than 8 bits a pixel
    low: float | None = None  # of the values, where they have more than 8 bits
    high: float | None = None
    is_float: bool = False
    light: float | None = None  # mean of what is visible where it is transparent, 0 to 255
    border: float | None = None  # mean of the outermost pixels of some that are not
    upper: int | None = None  # the largest upper byte of colours of 16 bits


class _Wanted(NamedTuple):
    """For what pixels must be read."""

    values: bool  # the range of those of more than 8 bits
    light: bool  # of what is visible
    border: bool  # of what is opaque
    depth: bool  # that is left of colours of 16 bits


class Surveyed(NamedTuple):
    """A file: its pages, or why it can't be read."""

    pages: tuple[Page, ...] = ()
    fault: str | None = None


def asks_border(count: int) -> NDArray[np.bool_]:
    """Which of so many files, evenly spaced, show on what ground a set is."""
    asked: NDArray[np.bool_] = np.arange(count) % max(1, count // NUM_BORDERS) == 0
    return asked


def survey(
    files: Sequence[ImageFile],
    data: DataConfig,
    *,
    every_value: bool,
    with_border: Sequence[bool] | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[Surveyed]:
    """What each file holds. Pixels are read only where `every_value`, and a setting needs them.

    `with_border` says of which files those are looked at, should they be some of a larger set;
    `advance` is as for `in_threads`.
    """
    wants_range = every_value and data.value_range == "auto"
    wants_ground = every_value and data.background == "auto"
    asked = asks_border(len(files)).tolist() if with_border is None else with_border

    def look(number: int) -> Surveyed:
        wanted = _Wanted(wants_range, wants_ground, wants_ground and asked[number], every_value)
        try:
            with open_image(files[number]) as image:
                count = getattr(image, "n_frames", 1) if data.pages == "all" else 1
                pages = []
                for index in range(count):
                    if index:
                        image.seek(index)
                    pages.append(_page(image, data, wanted))
                return Surveyed(tuple(pages))
        except UNREADABLE as error:
            return Surveyed(fault=reason(error))

    return in_threads(look, range(len(files)), "reading headers", advance)


def settle(data: DataConfig, pages: Sequence[Page]) -> DataConfig:
    """`data` with what is `auto` as these images ask for."""
    if data.value_range == "auto":
        data = replace(data, value_range=_value_range(pages))
    if data.background == "auto":
        data = replace(data, background=_background(pages))
    return data


def common_channels(pages: Sequence[Page], data: DataConfig) -> int:
    """Channels that hold every image: grey or colour; with alpha where that is no ground's."""
    has_colour = any(page.has_colour for page in pages)
    has_alpha = data.background == "none" and any(page.has_alpha for page in pages)
    return data.channels or (3 if has_colour else 1) + int(has_alpha)


def _value_range(pages: Sequence[Page]) -> str:
    """As LOW,HIGH: the bits in use where no value is below 0, else the values in use."""
    deep = [page for page in pages if page.low is not None and page.high is not None]
    if not deep:
        return f"0,{_BYTE}"
    low = min(page.low for page in deep if page.low is not None)
    high = max(page.high for page in deep if page.high is not None)
    if low >= 0 and not any(page.is_float for page in deep):
        return f"0,{max(_BYTE, 2 ** int(high).bit_length() - 1)}"
    if low >= 0 and high <= 1:
        return "0,1"
    return f"{low:.9g},{high if high > low else low + 1:.9g}"


def _background(pages: Sequence[Page]) -> str:
    """White, or black where transparent images would hardly show on it; else as the borders are.

    A set of opaque images decides so for those that are predicted later.
    """
    light = [page.light for page in pages if page.light is not None]
    if light:
        return "white" if float(np.median(light)) <= _LIGHT else "black"
    borders = [page.border for page in pages if page.border is not None]
    return "black" if borders and float(np.median(borders)) < _MIDDLE else "white"


def _page(image: Image.Image, data: DataConfig, wanted: _Wanted) -> Page:
    sample = sample_format(image)
    deep, has_alpha = is_deep(image, sample), holds_alpha(image)
    by_mode = data.reading == "suffix"  # then a palette was colour
    page = Page(not deep and _has_colour(image, by_mode), has_alpha and not deep, deep)
    if deep and wanted.values:
        values = deep_values(image, sample)
        page = page._replace(
            low=float(values.min()), high=float(values.max()), is_float=image.mode == "F"
        )
    if sample.loses_depth and wanted.depth:
        page = page._replace(upper=int(np.asarray(image.convert("RGB")).max()))
    if wanted.light and deep and has_alpha:
        page = page._replace(light=_visible_light_of_deep(image, sample))
    elif wanted.light and not deep:
        if has_alpha:
            page = page._replace(light=_visible_light(image, sample))
        elif wanted.border:
            page = page._replace(border=_border(image))
    return page


def _has_colour(image: Image.Image, by_mode: bool) -> bool:
    if (
        not by_mode
        and image.mode in ("P", "PA")
        and (palette := image.getpalette("RGB")) is not None
    ):
        colours = np.array(palette).reshape(-1, 3)
        return bool((colours != colours[:, :1]).any())
    return image.mode not in ("1", "L", "LA", "La")


def _visible_light(image: Image.Image, sample: SampleFormat) -> float | None:
    """The mean grey of the pixels by how opaque they are; None where none is transparent."""
    shown = with_alpha(image, sample).convert("LA")
    grey, alpha = np.asarray(shown, np.float64).transpose(2, 0, 1)
    if alpha.min() == _OPAQUE or not alpha.any():
        return None
    return float((grey * alpha).sum() / alpha.sum())


def _visible_light_of_deep(image: Image.Image, sample: SampleFormat) -> float | None:
    """As `_visible_light`, of the values in use."""
    values = deep_values(image, sample)
    is_visible = values != image.info["transparency"]
    if is_visible.all() or not is_visible.any():
        return None
    high = max(1.0, float(2 ** int(values.max()).bit_length() - 1))
    return float(values[is_visible].mean()) * _BYTE / high


def _border(image: Image.Image) -> float:
    grey = np.asarray(image.convert("L"), np.float64)
    if min(grey.shape) < 3:
        return float(grey.mean())
    inner = grey[1:-1, 1:-1]
    return float((grey.sum() - inner.sum()) / (grey.size - inner.size))
