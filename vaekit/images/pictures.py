"""Pictures made of images alone: grids, and their files."""

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaekit.storage.files import write_bytes

MIN_TILE = 56  # pixels: smaller images are enlarged
GAP = 2  # pixels between tiles
PAIR_GAP = 12  # pixels between one pair of rows and the next, an image and its neighbours


def image_grid(
    images: NDArray[np.uint8], columns: int | None = None, *, keep_alpha: bool = False
) -> Image.Image:
    """Lay `images` [N, C, H, W] out row by row, near-square unless `columns` is given.

    One channel is grey, two grey and alpha, three RGB, four RGBA; alpha is composited over
    white, unless it is kept: then the gaps are transparent, too. Small images are enlarged by a
    whole factor, so that each pixel stays a square.
    """
    has_alpha = keep_alpha and images.shape[1] in (2, 4)
    tiles = _enlarged(images.transpose(0, 2, 3, 1) if has_alpha else opaque(images))
    num_tiles, height, width, num_channels = tiles.shape
    columns = columns or math.ceil(math.sqrt(num_tiles))
    rows = math.ceil(num_tiles / columns)
    size = rows * (height + GAP) - GAP, columns * (width + GAP) - GAP
    sheet = np.full((*size, num_channels), 0 if has_alpha else 255, np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = row * (height + GAP), column * (width + GAP)
        sheet[top : top + height, left : left + width] = tile
    return _image(sheet)


def single_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """One image [C, H, W] as it is, alpha kept."""
    return _image(pixels.transpose(1, 2, 0))


def reconstruction_grid(
    originals: NDArray[np.uint8], reconstructions: NDArray[np.uint8], columns: int = 8
) -> Image.Image:
    """Rows of `originals` [N, C, H, W], each above the row of their `reconstructions`."""
    num_images = len(originals)
    columns = min(columns, num_images)
    strips = [
        image_grid(images[start : start + columns], columns)
        for start in range(0, num_images, columns)
        for images in (originals, reconstructions)
    ]
    width, height = strips[0].size
    pitch = 2 * height + GAP + PAIR_GAP
    sheet = Image.new(strips[0].mode, (width, len(strips) // 2 * pitch - PAIR_GAP), "white")
    for index, strip in enumerate(strips):
        pair, below = divmod(index, 2)
        sheet.paste(strip, (0, pair * pitch + below * (height + GAP)))
    return sheet


def neighbour_grid(images: NDArray[np.uint8], neighbours: NDArray[np.uint8]) -> Image.Image:
    """A row for each of `images` [N, C, H, W]: itself, a gap, its `neighbours` [N, k, C, H, W]."""
    left = image_grid(images, columns=1)
    right = image_grid(neighbours.reshape(-1, *neighbours.shape[2:]), neighbours.shape[1])
    sheet = Image.new(left.mode, (left.width + PAIR_GAP + right.width, left.height), "white")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + PAIR_GAP, 0))
    return sheet


def write_image(path: Path, image: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    write_bytes(path, content.getvalue())


def opaque(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`images` [N, C, H, W] as [N, H, W, 1 or 3], alpha composited over white."""
    num_channels = images.shape[1]
    if not 1 <= num_channels <= 4:
        raise ValueError(f"images of {num_channels} channels; expected 1 to 4")
    tiles = images.transpose(0, 2, 3, 1)
    if num_channels in (2, 4):
        alpha = tiles[..., -1:] / 255
        tiles = np.rint(tiles[..., :-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return tiles


def _enlarged(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tiles [N, H, W, C], each pixel a square of several where they are small."""
    factor = max(1, math.ceil(MIN_TILE / max(tiles.shape[1:3])))
    return tiles.repeat(factor, axis=1).repeat(factor, axis=2)


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Pixels [H, W, 1 to 4] as grey, grey and alpha, RGB or RGBA."""
    return Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
