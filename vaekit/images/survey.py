"""What the files say before they are decoded, and the settings that follow from it."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaekit.config import DataConfig
from vaekit.images.coded import Coded, coded
from vaekit.images.formats import UNREADABLE, ImageFile, in_threads, open_image, reason
from vaekit.images.mapped import Mapped, blocks
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


UNKNOWN = float("nan")
NO_UPPER = -1


class Page(NamedTuple):
    """An image of a file, as far as is needed to choose settings for all."""

    has_colour: bool
    has_alpha: bool
    is_deep: bool = False  # of more than 8 bits a pixel
    low: float = UNKNOWN  # of the values, where they have more than 8 bits
    high: float = UNKNOWN
    is_float: bool = False
    light: float = UNKNOWN  # mean of what is visible where it is transparent, 0 to 255
    border: float = UNKNOWN  # mean of the outermost pixels of some that are not
    upper: int = NO_UPPER  # the largest upper byte of colours of 16 bits


PAGE: list[tuple[str, str]] = [
    ("has_colour", "?"), ("has_alpha", "?"), ("is_deep", "?"), ("low", "<f8"), ("high", "<f8"),
    ("is_float", "?"), ("light", "<f8"), ("border", "<f8"), ("upper", "<i4"),
]  # fmt: skip


class Survey(NamedTuple):
    """What N files hold."""

    num_pages: NDArray[np.int32]  # [N], 0 of a file that can't be read
    faults: Coded  # [N], why not
    pages: NDArray[Any] | Mapped  # [P], of all files in order: rows with the fields of `PAGE`
    asked: NDArray[np.bool_]  # [P], whether the border of each counts

    def looks(self, which: NDArray[np.int64]) -> "Looks":
        """What some pages have in common."""
        return looks_of(map(self._some, blocks(which)))

    def _some(self, which: NDArray[np.int64]) -> NDArray[Any]:
        rows: NDArray[Any] = self.pages[which]
        rows["border"][~self.asked[which]] = UNKNOWN
        return rows


class Looks(NamedTuple):
    """What pages have in common."""

    has_colour: bool = False  # any of them
    has_alpha: bool = False
    num_deep: int = 0
    low: float = UNKNOWN  # of the values of all of more than 8 bits
    high: float = UNKNOWN
    is_float: bool = False
    light: float = UNKNOWN  # the median
    border: float = UNKNOWN
    num_upper: int = 0  # those of 16 bits a colour
    upper: int = NO_UPPER


class _Wanted(NamedTuple):
    """For what pixels must be read."""

    values: bool  # the range of those of more than 8 bits
    light: bool  # of what is visible
    border: bool  # of what is opaque


def asks_border(count: int) -> NDArray[np.bool_]:
    """Which of so many files, evenly spaced, show on what ground a set is."""
    asked: NDArray[np.bool_] = np.arange(count) % max(1, count // NUM_BORDERS) == 0
    return asked


def survey(
    files: Sequence[ImageFile],
    data: DataConfig,
    *,
    with_border: Sequence[bool] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Survey:
    """What each file holds. Pixels are read only where a setting needs them.

    `with_border` says of which files those are looked at, should they be some of a larger set;
    `advance` is as for `in_threads`.
    """
    wants_range, wants_ground = data.value_range == "auto", data.background == "auto"
    asked = asks_border(len(files)).tolist() if with_border is None else with_border

    def look(number: int) -> list[Page] | str:
        wanted = _Wanted(wants_range, wants_ground, wants_ground and asked[number])
        try:
            with open_image(files[number]) as image:
                count = getattr(image, "n_frames", 1) if data.pages == "all" else 1
                pages = []
                for index in range(count):
                    if index:
                        image.seek(index)
                    pages.append(_page(image, data, wanted))
                return pages
        except UNREADABLE as error:
            return reason(error)

    found = in_threads(look, len(files), "reading headers", advance)
    pages_of = [[] if isinstance(each, str) else each for each in found]
    num_pages = np.array(list(map(len, pages_of)), np.int32)
    return Survey(
        num_pages,
        coded(each if isinstance(each, str) else None for each in found),
        np.array([page for each in pages_of for page in each], PAGE),
        np.repeat(np.array(asked, bool), num_pages),
    )


def looks_of(pages: Iterable[NDArray[Any]]) -> Looks:
    """What pages, given in blocks of rows, have in common."""
    looks, lights, borders = Looks(), [], []
    for rows in pages:
        deep = rows[~(np.isnan(rows["low"]) | np.isnan(rows["high"]))]
        looks = Looks(
            has_colour=looks.has_colour or bool(rows["has_colour"].any()),
            has_alpha=looks.has_alpha or bool(rows["has_alpha"].any()),
            num_deep=looks.num_deep + int(rows["is_deep"].sum()),
            low=float(np.fmin.reduce(deep["low"], initial=looks.low)),
            high=float(np.fmax.reduce(deep["high"], initial=looks.high)),
            is_float=looks.is_float or bool(deep["is_float"].any()),
            num_upper=looks.num_upper + int((rows["upper"] != NO_UPPER).sum()),
            upper=int(rows["upper"].max(initial=looks.upper)),
        )
        lights.append(_known(rows["light"]))
        borders.append(_known(rows["border"]))
    return looks._replace(light=_median(lights), border=_median(borders))


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _median(values: Sequence[NDArray[np.float64]]) -> float:
    return float(np.median(np.concatenate(values))) if any(map(len, values)) else UNKNOWN


def settle(data: DataConfig, looks: Looks) -> DataConfig:
    """`data` with what is `auto` as images of such `looks` ask for."""
    if data.value_range == "auto":
        data = replace(data, value_range=_value_range(looks))
    if data.background == "auto":
        data = replace(data, background=_background(looks))
    return data


def common_channels(looks: Looks, data: DataConfig) -> int:
    """Channels that hold every image: grey or colour; with alpha where that is no ground's."""
    has_alpha = data.background == "none" and looks.has_alpha
    return data.channels or (3 if looks.has_colour else 1) + int(has_alpha)


def _value_range(looks: Looks) -> str:
    """As LOW,HIGH: the bits in use where no value is below 0, else the values in use."""
    low, high = looks.low, looks.high
    if math.isnan(low):
        return f"0,{_BYTE}"
    if low >= 0 and not looks.is_float:
        return f"0,{max(_BYTE, 2 ** int(high).bit_length() - 1)}"
    if low >= 0 and high <= 1:
        return "0,1"
    return f"{low:.9g},{high if high > low else low + 1:.9g}"


def _background(looks: Looks) -> str:
    """White, or black where transparent images would hardly show on it; else as the borders are.

    A set of opaque images decides so for those that are predicted later.
    """
    if not math.isnan(looks.light):
        return "white" if looks.light <= _LIGHT else "black"
    return "black" if looks.border < _MIDDLE else "white"


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
    if sample.loses_depth:
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


def _visible_light(image: Image.Image, sample: SampleFormat) -> float:
    """The mean grey of the pixels by how opaque they are; `UNKNOWN` where none is transparent."""
    shown = with_alpha(image, sample).convert("LA")
    grey, alpha = np.asarray(shown, np.float64).transpose(2, 0, 1)
    if alpha.min() == _OPAQUE or not alpha.any():
        return UNKNOWN
    return float((grey * alpha).sum() / alpha.sum())


def _visible_light_of_deep(image: Image.Image, sample: SampleFormat) -> float:
    """As `_visible_light`, of the values in use."""
    values = deep_values(image, sample)
    is_visible = values != image.info["transparency"]
    if is_visible.all() or not is_visible.any():
        return UNKNOWN
    high = max(1.0, float(2 ** int(values.max()).bit_length() - 1))
    return float(values[is_visible].mean()) * _BYTE / high


def _border(image: Image.Image) -> float:
    grey = np.asarray(image.convert("L"), np.float64)
    if min(grey.shape) < 3:
        return float(grey.mean())
    inner = grey[1:-1, 1:-1]
    return float((grey.sum() - inner.sum()) / (grey.size - inner.size))
