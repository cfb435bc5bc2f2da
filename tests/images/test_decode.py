"""Image files: right pixels in the right shape, whatever Pillow can read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from image_helpers import as_prepared, flat, load, write, write_pets
from PIL import Image
from torch.nn.functional import interpolate

from vaekit.config import DataConfig
from vaekit.errors import UserError
from vaekit.images.decode import fit
from vaekit.images.inputs import Trained, read_inputs


def two_pixel_palette(transparency: int | None) -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


GREY, RGB = Image.new("L", (8, 8), 70), Image.new("RGB", (8, 8), (200, 10, 20))

GREY_ALPHA = Image.new("LA", (8, 8), (70, 128))

RGBA = Image.new("RGBA", (8, 8), (200, 10, 20, 128))


@pytest.mark.parametrize(
    ("files", "channels"),
    [
        ([GREY, Image.new("1", (8, 8), 1)], 1),
        ([GREY, GREY_ALPHA], 2),
        ([GREY, RGB], 3),
        ([two_pixel_palette(None), GREY], 3),
        ([two_pixel_palette(0), RGB], 4),
        ([GREY_ALPHA, RGB], 4),
        ([RGBA, GREY], 4),
    ],
    ids=lambda value: "+".join(i.mode for i in value) if isinstance(value, list) else str(value),
)
def test_where_nothing_is_composited_the_channels_hold_every_file_of_a_mixed_set(
    files: list[Image.Image], channels: int, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i, image in enumerate(files):
            image.save(tmp_path / split / f"{i}.png")
    loaded = load(tmp_path, image_size=8, background="none")
    assert loaded.shape == (channels, 8, 8)
    colours = {
        "L": (70, 70, 70, 255),
        "1": (255, 255, 255, 255),
        "LA": (70, 70, 70, 128),
        "RGB": (200, 10, 20, 255),
        "P": (200, 10, 20, 255),
        "RGBA": (200, 10, 20, 128),
    }
    bands = {1: (0,), 2: (0, 3), 3: (0, 1, 2), 4: (0, 1, 2, 3)}[channels]
    expected = {tuple(colours[image.mode][band] for band in bands) for image in files}
    assert {tuple(pixels[:, 4, 4].tolist()) for pixels in loaded.train.pixels} == expected


def test_a_cmyk_photo_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, quality=95)
    red = as_prepared([path], (3, 8, 8))[0, :, 4, 4].astype(int)
    assert red[0] > 240
    assert red[1:].max() < 15


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_greys_are_scaled_to_8_bits(suffix: str, tmp_path: Path) -> None:
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    path = tmp_path / f"deep.{suffix}"
    if suffix == "pgm":  # Pillow before 11 reads it and can't write it
        path.write_bytes(b"P5 8 8 65535\n" + deep.astype(">u2").tobytes())
    else:
        write(path, deep)
    expected = np.round(deep / 65535 * 255)
    np.testing.assert_array_equal(as_prepared([path], (1, 8, 8))[0, 0], expected)


def test_images_are_turned_as_their_camera_said(tmp_path: Path) -> None:
    upright = np.zeros((8, 8), np.uint8)
    upright[0, :] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = write(tmp_path / "turned.png", np.rot90(upright).copy(), exif=exif)
    np.testing.assert_array_equal(as_prepared([path], (1, 8, 8))[0, 0], upright)


def test_resizing_is_bilinear_with_antialiasing_over_the_whole_image(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    path = write(tmp_path / "wide.png", wide)
    pixels = torch.from_numpy(wide).permute(2, 0, 1)[None].double()
    expected = interpolate(pixels, (28, 28), mode="bilinear", antialias=True)[0].numpy()
    assert np.abs(as_prepared([path], (3, 28, 28))[0] - expected).max() <= 1


@pytest.mark.injects(12)
def test_odd_exif_entries_do_no_harm(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.5
    path = write(tmp_path / "odd.jpg", flat(70), exif=exif)
    resolution = bytes.fromhex("011a 0005 00000001")  # a rational number
    for tag in ("011b", "010f"):  # of another name, and where a text belongs
        odd = bytes.fromhex(f"{tag} 0002 00000001")
        path.write_bytes(path.read_bytes().replace(resolution, odd))
        assert as_prepared([path], (1, 8, 8)).tolist() == [[flat(70).tolist()]]


def test_files_for_a_model_are_prepared_as_those_of_a_folder(tmp_path: Path) -> None:
    pets = write_pets(tmp_path)
    loaded = load(pets, image_size=12)
    paths = sorted((pets / "test").rglob("*.*"))
    prepared = as_prepared(paths, loaded.shape)
    assert {p.tobytes() for p in prepared} == {p.tobytes() for p in loaded.test.pixels}
    assert as_prepared(paths, (3, 20, 20)).shape == (6, 3, 20, 20)
    assert as_prepared([], (1, 8, 8)).shape == (0, 1, 8, 8)


@pytest.mark.injects(12)
def test_files_for_a_model_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good.png", flat(0))
    given = [good, tmp_path / "missing.png", ROOT / "README.md"]
    words = r"can't read .*missing\.png \(no file\), .*README.*leave out or replace"
    with pytest.raises(UserError, match=words):
        read_inputs(given, Trained((1, 8, 8), DataConfig(), (), None))


def test_a_later_file_of_several_pages_gives_its_first_and_says_so_where_training_took_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (Image.fromarray(flat(value)) for value in (40, 200))
    path = tmp_path / "stack.tif"
    first.save(path, save_all=True, append_images=[second])
    settings = DataConfig(name="folder", pages="all", background="white", value_range="0,255")
    pixels = read_inputs([path], Trained((1, 8, 8), settings, (), None)).pixels
    assert pixels.tolist() == [[flat(40).tolist()]]
    assert "of which the first is used" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(31, 50), (50, 31), (49, 7), (3, 100)], ids=str)
def test_an_image_of_any_size_is_cropped(size: tuple[int, int]) -> None:
    """The part that is kept of the first is a rounding wider than it, which Pillow refuses."""
    for shape in ((1, 12, 17), (1, 17, 12), (1, 7, 7)):
        assert fit(Image.new("L", size), shape, "crop").shape == shape
