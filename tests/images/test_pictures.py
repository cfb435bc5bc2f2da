from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vaekit.images.pictures import GAP, PAIR_GAP, image_grid, reconstruction_grid, write_image

WHITE = 255


def constant_images(*values: int, size: int = 56, channels: int = 1) -> NDArray[np.uint8]:
    return np.array([np.full((channels, size, size), value, np.uint8) for value in values])


def test_a_grid_has_its_images_in_reading_order_with_white_gaps() -> None:
    grid = np.asarray(image_grid(constant_images(10, 20, 30), columns=2))
    assert grid.shape == (56 + GAP + 56, 56 + GAP + 56)
    expected = np.full(grid.shape, WHITE, np.uint8)
    expected[:56, :56] = 10
    expected[:56, 56 + GAP :] = 20
    expected[56 + GAP :, :56] = 30
    np.testing.assert_array_equal(grid, expected)


def test_small_images_are_enlarged_by_a_whole_factor() -> None:
    image = np.arange(28 * 28, dtype=np.uint64).astype(np.uint8).reshape(1, 1, 28, 28)
    enlarged = np.kron(image[0, 0], np.ones((2, 2), np.uint8))
    np.testing.assert_array_equal(np.asarray(image_grid(image)), enlarged)


@pytest.mark.parametrize(("size", "tile"), [(8, 56), (20, 60), (56, 56), (100, 100)])
def test_a_tile_is_at_least_56_pixels(size: int, tile: int) -> None:
    assert image_grid(constant_images(0, size=size)).size == (tile, tile)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (5, 3, 2), (64, 8, 8)])
def test_a_grid_is_near_square(count: int, columns: int, rows: int) -> None:
    expected = columns * (56 + GAP) - GAP, rows * (56 + GAP) - GAP
    assert image_grid(constant_images(*[0] * count)).size == expected


@pytest.mark.parametrize(
    ("channels", "mode", "shown"),
    [
        ([40], "L", 40),
        ([40, 128], "L", 147),  # 40 * 128 / 255 + 255 * 127 / 255 = 147.08
        ([40, 0], "L", 255),
        ([10, 20, 30], "RGB", (10, 20, 30)),
        ([10, 20, 30, 255], "RGB", (10, 20, 30)),
        ([10, 20, 30, 51], "RGB", (206, 208, 210)),
    ],
)
def test_channels_are_grey_or_colour_and_alpha_lies_over_white(
    channels: list[int], mode: str, shown: int | tuple[int, ...]
) -> None:
    image = np.array(channels, np.uint8).reshape(1, -1, 1, 1).repeat(56, 2).repeat(56, 3)
    grid = image_grid(image)
    assert grid.mode == mode
    assert grid.getpixel((20, 20)) == shown


def test_more_channels_than_a_picture_has_are_refused() -> None:
    with pytest.raises(ValueError, match="5 channels"):
        image_grid(constant_images(0, channels=5))


def test_each_original_stands_above_its_reconstruction() -> None:
    grid = reconstruction_grid(constant_images(1, 2, 3), constant_images(101, 102, 103), columns=2)
    tile, pitch = 56 + GAP, 2 * 56 + GAP + PAIR_GAP
    assert grid.size == (2 * 56 + GAP, 2 * pitch - PAIR_GAP)
    for index, (column, pair) in enumerate([(0, 0), (1, 0), (0, 1)]):
        x, y = column * tile + 5, pair * pitch + 5
        assert grid.getpixel((x, y)) == index + 1
        assert grid.getpixel((x, y + tile)) == index + 101
    assert grid.getpixel((tile + 5, pitch + 5)) == WHITE


def test_a_written_image_is_a_png_with_the_same_pixels(tmp_path: Path) -> None:
    grid = image_grid(constant_images(3, 200))
    write_image(tmp_path / "samples" / "grid.png", grid)
    with Image.open(tmp_path / "samples" / "grid.png") as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), np.asarray(grid))
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["grid.png"]
