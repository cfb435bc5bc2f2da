"""What the images of a training set look like, to tell when others look unlike them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.images.mapped import PixelArray
from vaekit.storage.damage import number, typed

CELLS = 8  # rows and columns of the coarse picture of an image; none is smaller than 8x8
MAX_MEASURED = 10_000  # images
MAX_BYTES = 1 << 28  # of pixels
TAIL = 0.001  # of the training images beyond each end of a range
WIDENING = 0.25  # of a range, at each end, since a small set does not show all that may come
MIN_WIDENING = 0.02
_BATCH = 500  # images

Range = tuple[float, float]


@dataclass(frozen=True)
class Appearance:
    """The mean training image in coarse, and the range of three figures of each image."""

    mean: tuple[float, ...]  # brightness from 0 to 1 of 8x8 cells, row by row
    polarity: Range  # agreement with `mean` about what is light and what dark, from -1 to 1
    brightness: Range  # from 0 to 1
    contrast: Range  # standard deviation of the brightness of the pixels


class Looks(NamedTuple):
    """How many of some images don't look like those of a training set."""

    num_inverted: int  # whose inverse would look like them
    num_unlike: int  # others


class _Figures(NamedTuple):
    polarity: NDArray[np.float32]  # [N]
    brightness: NDArray[np.float32]
    contrast: NDArray[np.float32]


def measure(pixels: PixelArray) -> Appearance:
    """What training images [N, C, H, W] look like, by those that are evenly spaced among them."""
    most = min(MAX_MEASURED, max(1, MAX_BYTES // pixels[0].nbytes))
    chosen = np.linspace(0, len(pixels) - 1, min(len(pixels), most)).round().astype(int)
    some: NDArray[np.uint8] = pixels[np.unique(chosen)]
    mean = np.concatenate([_cells(_grey(batch)) for batch in _batches(some)]).mean(axis=0)
    figures = _figures(some, mean)
    return Appearance(tuple(mean.tolist()), *(_range(values) for values in figures))


def compare(pixels: NDArray[np.uint8], appearance: Appearance) -> Looks:
    """How many of the images [N, C, H, W] look unlike those that `measure` saw."""
    figures = _figures(pixels, np.array(appearance.mean, np.float32))
    of_inverses = _Figures(-figures.polarity, 1 - figures.brightness, figures.contrast)
    is_like, is_inverse_like = (_are_within(each, appearance) for each in (figures, of_inverses))
    num_inverted = int((~is_like & is_inverse_like).sum())
    return Looks(num_inverted, int((~is_like).sum()) - num_inverted)


def appearance_from(values: Any) -> Appearance:
    """What `dataclasses.asdict` took apart. Raises as `as_written` expects for anything else."""
    mean = tuple(number(value) for value in typed(values["mean"], list))
    if len(mean) != CELLS**2:
        raise ValueError(f"a mean image of {len(mean)} cells")
    ranges = []
    for name in _Figures._fields:
        low, high = typed(values[name], list)
        ranges.append((number(low), number(high)))
    return Appearance(mean, *ranges)


def _batches(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Brightness [N, H, W] from 0 to 1; alpha has none."""
    num_colours = 3 if pixels.shape[1] >= 3 else 1
    grey: NDArray[np.float32] = pixels[:, :num_colours].mean(axis=1, dtype=np.float32) / 255
    return grey


def _cells(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean brightness of cells [N, 64]."""
    for axis in (1, 2):
        edges = np.arange(CELLS + 1) * grey.shape[axis] // CELLS
        sums = np.add.reduceat(grey, edges[:-1], axis=axis)
        shape = (-1, 1) if axis == 1 else (-1,)
        grey = sums / np.diff(edges).reshape(shape).astype(np.float32)
    return grey.reshape(len(grey), -1)


def _figures(pixels: NDArray[np.uint8], mean: NDArray[np.float32]) -> _Figures:
    rows = []
    for batch in _batches(pixels):
        grey = _grey(batch)
        cells = _cells(grey)
        polarity = ((2 * cells - 1) * (2 * mean - 1)).mean(axis=1)
        rows.append((polarity, cells.mean(axis=1), grey.std(axis=(1, 2))))
    return _Figures(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def _range(values: NDArray[np.float32]) -> Range:
    low, high = np.quantile(values, (TAIL, 1 - TAIL)).tolist()
    margin = max(WIDENING * (high - low), MIN_WIDENING)
    return low - margin, high + margin


def _are_within(figures: _Figures, appearance: Appearance) -> NDArray[np.bool_]:
    within = [
        (low <= values) & (values <= high)
        for name, values in figures._asdict().items()
        for low, high in [getattr(appearance, name)]
    ]
    all_of_them: NDArray[np.bool_] = np.logical_and.reduce(within)
    return all_of_them
