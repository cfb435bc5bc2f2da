"""The images of a map as one small picture, which a page shows under the pointer."""

import base64
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaekit.images.pictures import opaque

COLUMNS = 64
MANY = 2000  # images, beyond which they are shown smaller
SIDES = (32, 24)  # pixels that an image has at most, of few and of many
QUALITY = 50  # of WebP: 5,000 of MNIST are half a megabyte
GRAIN = 4095  # places are told to this share of the width and the height


def thumbnails(
    pixels: NDArray[np.uint8], places: NDArray[np.float64], names: list[str]
) -> dict[str, Any]:
    """What the page's script needs of `pixels` [n, C, H, W] at `places` [n, 2] on the map.

    Places are shares of the map's width and height, from its left and upper edges.
    """
    tiles = opaque(pixels)
    height, width = _small(tiles.shape[1], tiles.shape[2], SIDES[len(pixels) > MANY])
    mode = "L" if tiles.shape[3] == 1 else "RGB"
    columns = min(COLUMNS, len(tiles))
    sheet = Image.new(mode, (columns * width, math.ceil(len(tiles) / columns) * height))
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        image = Image.fromarray(tile.squeeze(axis=2) if mode == "L" else tile)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BOX)
        sheet.paste(image, (column * width, row * height))
    content = io.BytesIO()
    sheet.save(content, format="WEBP", quality=QUALITY)
    return {
        "sheet": f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}",
        "columns": columns,
        "width": width,
        "height": height,
        "grain": GRAIN,
        "places": np.rint(places * GRAIN).astype(int).ravel().tolist(),
        "names": names,
    }


def _small(height: int, width: int, side: int) -> tuple[int, int]:
    """A size that is not larger, of the same proportions, its longer side at most `side`."""
    scale = min(1, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
