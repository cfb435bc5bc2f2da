"""Image files made into arrays of one shape, and what became of each on the way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vaekit.config import DataConfig, parse_value_range
from vaekit.images.coded import NONE, Coded, coded
from vaekit.images.formats import UNREADABLE, ImageFile, in_threads, open_image, reason
from vaekit.images.pixels import ImageShape
from vaekit.images.preparation import RESIZE_FILTER
from vaekit.images.reading import Tally, tallied
from vaekit.images.survey import looks_of, settle, survey
from vaekit.images.values import (
    SampleFormat,
    deep_values,
    holds_alpha,
    is_deep,
    sample_format,
    to_8_bit,
    with_alpha,
)

_RESAMPLING = Image.Resampling[RESIZE_FILTER.upper()]
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_ALPHA = (2, 4)  # channels, one of which it is


class Source(NamedTuple):
    """An image in a file: a page of it, counted from 0."""

    file: ImageFile
    page: int = 0


class Prepared(NamedTuple):
    """Image files as a model takes them."""

    pixels: NDArray[np.uint8]  # [N, C, H, W], of those that could be read
    kept: NDArray[np.int64]  # [N], their indices among the files
    unreadable: dict[int, str]  # index of each other file: why
    used_otherwise: tuple[Tally, ...]


def prepare_readable(paths: Sequence[Path], shape: ImageShape, data: DataConfig) -> Prepared:
    """The files that can be read as [N, C, H, W], and the reason for each of the others.

    They are prepared as those of `data` are, for a model of `shape`; EXIF orientation is applied.
    Of a file with several pages it is the first, also where training took all.
    """
    data = replace(data, pages="first")
    if "auto" in (data.background, data.value_range):
        data = settle(data, looks_of([survey(paths, data).pages[:]]))
    pixels: NDArray[np.uint8] = np.empty((len(paths), *shape), np.uint8)
    decoded = decode_files([Source(path) for path in paths], pixels, data, "reading")
    kept = np.flatnonzero(decoded.unreadable.codes == NONE)
    return Prepared(
        pixels[kept] if len(kept) < len(paths) else pixels,
        kept,
        dict(decoded.unreadable.items()),
        tallied(decoded.fates.items(), lambda index: str(paths[index])),
    )


class Decoded(NamedTuple):
    """What became of each of N sources."""

    unreadable: Coded  # [N], why
    fates: Coded  # [N], tuples of what each was used as, where not as it is


def decode_files(
    sources: Sequence[Source],
    pixels: NDArray[np.uint8],
    data: DataConfig,
    description: str,
    advance: Callable[[int], None] | None = None,
) -> Decoded:
    """Fill `pixels` [N, C, H, W] from N images, prepared as `data`, which is settled, says.

    `advance` is as for `in_threads`.
    """
    channels, height, width = pixels.shape[1:]

    def decode(index: int) -> tuple[str, ...] | str:
        try:
            page = _load(sources[index])
        except UNREADABLE as error:
            return reason(error)
        try:
            pixels[index], fates = _prepare(page, (channels, height, width), data)
        except ValueError as error:  # NaN, or a mode that nothing converts
            return reason(error)
        return fates

    results = in_threads(decode, len(sources), description, advance)
    return Decoded(
        coded(each if isinstance(each, str) else None for each in results),
        coded(() if isinstance(each, str) else each for each in results),
    )


def fit(
    image: Image.Image, shape: tuple[int, int, int], how: str = "stretch", ground: str = "none"
) -> NDArray[np.uint8]:
    """An image of 8 bits a channel as [C, H, W]: resized whole, or with its aspect kept.

    `how` is stretch, pad (with the colour `ground`; transparent where there is alpha) or crop
    (to the middle).
    """
    channels, height, width = shape
    image = image.convert(_MODES[channels])
    if how == "crop":
        scale = max(width / image.width, height / image.height)
        # At most the image: width / scale may be a rounding more.
        kept = min(width / scale, image.width), min(height / scale, image.height)
        left, top = (image.width - kept[0]) / 2, (image.height - kept[1]) / 2
        box = left, top, left + kept[0], top + kept[1]
        fitted = image.resize((width, height), _RESAMPLING, box)
    elif how == "pad":
        scale = min(width / image.width, height / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        bars = 0 if channels in _ALPHA or ground == "none" else ground
        fitted = Image.new(image.mode, (width, height), bars)
        corner = (width - size[0]) // 2, (height - size[1]) // 2
        fitted.paste(image.resize(size, _RESAMPLING), corner)
    else:
        fitted = image.resize((width, height), _RESAMPLING)
    return np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)


class _Page(NamedTuple):
    """An image as it lies in a file, turned as its EXIF orientation says."""

    image: Image.Image
    sample: SampleFormat
    num_pages: int  # of the file


def _load(source: Source) -> _Page:
    with open_image(source.file) as file:
        num_pages = getattr(file, "n_frames", 1)
        if source.page:
            file.seek(source.page)
        sample = sample_format(file)
        file.getexif()
        file.info.pop("exif", None)  # or Pillow writes it anew and stumbles over odd entries
        image = ImageOps.exif_transpose(file)
        image.load()
        return _Page(image, sample, num_pages)


def _prepare(
    page: _Page, shape: tuple[int, int, int], data: DataConfig
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    image, sample, num_pages = page
    fates: list[str] = []
    if num_pages > 1 and data.pages == "first":
        fates.append("files of several pages or frames, of which the first is used")
    if sample.loses_depth:
        fates.append("images of 16 bits a colour, of which the upper 8 are used")
    if is_deep(image, sample):
        image = _shallow(image, sample, data, fates)
    if holds_alpha(image):
        image = _without_alpha(image, sample, shape[0], data, fates)
    if shape[0] < 3 and _is_coloured(image):
        fates.append("colour images turned to grey")
    if not _same_aspect(image, shape):
        fates.append(_FITTED[data.fit])
    fitted = fit(image, shape, data.fit, data.background)
    if "transparent" in "".join(fates) and fitted.min() == fitted.max():
        fates.append("transparent images of which nothing shows (--data.background)")
    return fitted, tuple(fates)


_FITTED = {
    "stretch": "images of another aspect than the model's, stretched (--data.fit pad or crop "
    "keeps it)",
    "pad": "images of another aspect than the model's, padded",
    "crop": "images of another aspect than the model's, cropped to the middle",
}


def _shallow(
    image: Image.Image, sample: SampleFormat, data: DataConfig, fates: list[str]
) -> Image.Image:
    """An image of more than 8 bits a pixel as grey of 8, a transparent value as alpha."""
    values = deep_values(image, sample)
    low, high = parse_value_range(data.value_range)
    beyond = (values < low) | (values > high)
    if beyond.any():
        fates.append(f"images with values beyond {low:g} to {high:g}, clipped")
    grey = Image.fromarray(to_8_bit(values, low, high))
    if (key := image.info.get("transparency")) is not None and data.background != "none":
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _without_alpha(
    image: Image.Image, sample: SampleFormat, channels: int, data: DataConfig, fates: list[str]
) -> Image.Image:
    """Composited on the background, unless the transparency is a channel or to be dropped."""
    if data.background == "none":
        if channels not in _ALPHA and _is_transparent(with_alpha(image, sample)):
            fates.append("transparent images whose hidden colours are shown")
        return image
    image = with_alpha(image, sample)
    if channels in _ALPHA:
        return image
    if _is_transparent(image):
        fates.append(f"transparent images composited on {data.background}")
    colours = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, data.background)
    return Image.alpha_composite(ground, colours).convert("L" if image.mode == "LA" else "RGB")


def _is_transparent(image: Image.Image) -> bool:
    """Whether an image with alpha is so anywhere."""
    return bool(np.asarray(image.getchannel("A")).min() < 255)


def _is_coloured(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA"):
        return False
    colours = np.asarray(image.convert("RGB"))
    return bool((colours != colours[..., :1]).any())


def _same_aspect(image: Image.Image, shape: tuple[int, int, int]) -> bool:
    """To within half a pixel of the result."""
    _, height, width = shape
    return abs(image.width * height / image.height - width) <= 0.5 or (
        abs(image.height * width / image.width - height) <= 0.5
    )
