"""Kinds of files: what Pillow knows by content is an image, whatever its name; pages and frames."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_helpers import fault, flat, load, values, write
from numpy.typing import NDArray
from PIL import Image, features

from vaekit.config import DataConfig
from vaekit.images.decode import prepare_readable
from vaekit.images.formats import REFUSED, formats
from vaekit.images.image_set import Images
from vaekit.images.sets import count

# A name, and what Pillow calls the format that lies in the file.
NAMES = [
    ("a.png", "PNG"), ("a.jfif", "JPEG"), ("a.jpe", "JPEG"), ("a.JPG", "JPEG"), ("a", "PNG"),
    ("a.dat", "GIF"), ("a.jp2", "JPEG2000"), ("a.tga", "TGA"), ("a.ico", "ICO"), ("a.dib", "DIB"),
    ("a.pcx", "PCX"), ("a.sgi", "SGI"), ("a.ppm", "PPM"), ("a.pbm", "PPM"), ("a.txt", "WEBP"),
    ("a.dds", "DDS"), ("a.avif", "AVIF"), ("a.b.c", "TIFF"), ("a.png", "BMP"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_an_image_is_known_by_its_content(name: str, kind: str, tmp_path: Path) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    for index in range(10):
        write(tmp_path / "ab"[index % 2] / f"{index}.png", flat(index * 20, 16))
    Image.fromarray(flat(230, 16)).convert("RGB").save(tmp_path / "a" / name, kind)
    images = load(tmp_path, image_size=8)
    everyone = values(images.train) + values(images.test)
    assert len(everyone) == 11
    assert max(everyone) == pytest.approx(230, abs=3)
    assert images.reading.left_out == ()


def test_no_decoder_is_used_that_runs_other_programs() -> None:
    assert not REFUSED & {*formats()}
    assert {"EPS", "WMF"} <= REFUSED


def frames(root: Path, suffix: str) -> Path:
    """Two classes of single images, and in the first one a file of three."""
    for index in range(20):
        write(root / "ab"[index % 2] / f"{index}.png", flat(index))
    first, *rest = (Image.fromarray(flat(200 + 20 * page, 16)) for page in range(3))
    first.save(root / "a" / f"stack{suffix}", save_all=True, append_images=rest)
    return root


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".png"])
def test_of_pages_and_frames_the_first_is_used_and_said_or_all_are(
    suffix: str, tmp_path: Path
) -> None:
    root = frames(tmp_path, suffix)

    def bright(images: Images) -> list[int]:
        found = values(images.train) + values(images.test)
        return sorted(round(value / 10) * 10 for value in found if value > 100)

    first = load(root, image_size=8)
    assert bright(first) == [200]
    (tally,) = first.reading.used_otherwise
    assert tally.what == "files of several pages or frames, of which the first is used"
    assert tally.examples == (f"a/stack{suffix}",)
    every = load(root, image_size=8, pages="all")
    assert bright(every) == [200, 220, 240]
    assert every.reading.used_otherwise == ()
    sides = [np.max(every.train.pixels), np.max(every.test.pixels)]
    assert min(sides) < 100, "the pages of a file lie on one side"
    names = {*(every.train.files or ()), *(every.test.files or ())}
    assert {f"a/stack{suffix}", f"a/stack{suffix}#2", f"a/stack{suffix}#3"} <= names


def png_of_16_bits(path: Path, pixels: NDArray[np.uint16]) -> Path:
    """A PNG of colours [H, W, 3], which Pillow reads and can't write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def test_colours_of_16_bits_are_read_by_their_upper_8_and_that_is_said(tmp_path: Path) -> None:
    path = png_of_16_bits(tmp_path / "deep.png", np.full((8, 8, 3), 0x9AFF, np.uint16))
    prepared = prepare_readable([path], (3, 8, 8), DataConfig())
    assert (prepared.pixels == 0x9A).all()
    assert "16 bits a colour, of which the upper 8 are used" in prepared.used_otherwise[0].what


def test_colours_of_16_bits_that_use_few_of_them_are_refused(tmp_path: Path) -> None:
    for index in range(4):
        (tmp_path / "ab"[index % 2]).mkdir(exist_ok=True)
        path = tmp_path / "ab"[index % 2] / f"{index}.png"
        png_of_16_bits(path, np.full((8, 8, 3), 4000 + index, np.uint16))
    assert "use the lower 12 alone, of which Pillow gives 16 levels" in fault(tmp_path)


def test_colours_turned_to_grey_are_said(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    paths = [write(tmp_path / "red.png", red), write(tmp_path / "grey.png", red[..., 1])]
    (tally,) = prepare_readable(paths, (1, 8, 8), DataConfig()).used_otherwise
    assert (tally.what, tally.number) == ("colour images turned to grey", 1)


@pytest.mark.parametrize(
    ("fit", "edge", "middle"), [("stretch", 255, 255), ("pad", 0, 255), ("crop", 255, 255)]
)
def test_an_image_of_another_aspect_is_fitted_as_asked_and_said(
    fit: str, edge: int, middle: int, tmp_path: Path
) -> None:
    for index in range(10):
        bars = np.full((8, 24), 255, np.uint8)
        bars[:, :8] = bars[:, 16:] = 255 if fit == "pad" else 200
        bars[3, 8] = 20 * index
        write(tmp_path / "ab"[index % 2] / f"{index}.png", bars)
    images = load(tmp_path, image_size=8, fit=fit, background="black")
    pixels = images.train.pixels[:, 0]
    assert (pixels[:, 0, 4] == edge).all()
    assert (pixels[:, 4, 4] == middle).all()
    (tally,) = [each for each in images.reading.used_otherwise if "aspect" in each.what]
    assert tally.number == 10
    whole = load(tmp_path, image_size="8,24", fit=fit)
    assert whole.shape == (1, 8, 24)
    assert whole.reading.used_otherwise == ()
    assert (whole.train.pixels[:, 0, 4:] == bars[4:]).all()


def test_the_pad_of_opaque_images_is_as_their_borders_are(tmp_path: Path) -> None:
    for index in range(10):
        write(tmp_path / "ab"[index % 2] / f"{index}.png", np.full((8, 24), index, np.uint8))
    assert load(tmp_path, image_size=8, fit="pad").train.pixels.max() < 10
    assert count(load(tmp_path, image_size=8, fit="pad")).num_copies == 0
