"""The images of a map are one small picture."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from vaekit.report.thumbnails import MANY, thumbnails

GENERATOR = np.random.default_rng(0)


def sheet_of(held: dict[str, object]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(str(held["sheet"]).split(",")[1])))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_image_lies_where_its_number_says(channels: int) -> None:
    pixels = np.full((70, channels, 10, 20), 255, np.uint8)
    pixels[:, 0] = (np.arange(70) * 3)[:, None, None]
    held = thumbnails(pixels, np.zeros((70, 2)), [""] * 70)
    assert (held["width"], held["height"], held["columns"]) == (20, 10, 64)
    sheet = np.asarray(sheet_of(held).convert("RGB"))
    assert sheet.shape == (20, 64 * 20, 3)
    for index in (0, 1, 63, 64, 69):
        row, column = divmod(index, 64)
        assert abs(int(sheet[10 * row + 5, 20 * column + 10, 0]) - 3 * index) < 12


@pytest.mark.parametrize(("count", "size"), [(3, (32, 16)), (MANY + 1, (24, 12))])
def test_large_images_are_made_small(count: int, size: tuple[int, int]) -> None:
    pixels = np.zeros((count, 1, 64, 128), np.uint8)
    held = thumbnails(pixels, np.zeros((count, 2)), [""] * count)
    assert (held["width"], held["height"]) == size


@pytest.mark.slow
def test_five_thousand_of_them_are_less_than_a_megabyte() -> None:
    strokes = np.zeros((5000, 1, 28, 28), np.uint8)
    for image in strokes[:, 0]:
        at = GENERATOR.integers(4, 20, 2)
        image[at[0] : at[0] + 8, at[1] : at[1] + 3] = 255
    held = thumbnails(strokes, GENERATOR.random((5000, 2)), [""] * 5000)
    assert len(held["sheet"]) < 1_000_000
