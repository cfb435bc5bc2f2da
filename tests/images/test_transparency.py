"""Transparent images: composited on a background, whichever way their format says it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_helpers import as_prepared, fault, load, write
from PIL import Image

from vaekit.config import DataConfig
from vaekit.images.decode import prepare_readable
from vaekit.images.sets import count

SIZE = 24
INK = (slice(8, 16), slice(8, 16))  # where the images are opaque


def drawing(ink: int = 0, hidden: int = 0) -> Image.Image:
    """A square of grey `ink`, and around it nothing, under which lies another grey."""
    pixels = np.full((SIZE, SIZE, 4), hidden, np.uint8)
    pixels[..., 3] = 0
    pixels[INK] = (ink, ink, ink, 255)
    return Image.fromarray(pixels)


def in_grey(keyed: int, bits: str = "L") -> Image.Image:
    image = Image.new(bits, (SIZE, SIZE), keyed)
    image.paste(0, (8, 8, 16, 16))
    return image


def palette() -> Image.Image:
    image = in_grey(1).convert("P")
    image.putpalette([0, 0, 0, 90, 90, 90])
    return image


def deep(path: Path) -> None:
    values = np.full((SIZE, SIZE), 500, np.uint16)
    values[INK] = 0
    Image.fromarray(values).save(path, transparency=500)


def rgb(path: Path) -> None:
    image = Image.new("RGB", (SIZE, SIZE), (7, 8, 9))
    image.paste((0, 0, 0), (8, 8, 16, 16))
    image.save(path, transparency=(7, 8, 9))


WAYS: dict[str, Callable[[Path], None]] = {
    "rgba.png": lambda path: drawing().save(path),
    "grey and alpha.png": lambda path: drawing().convert("LA").save(path),
    "palette with an entry.png": lambda path: palette().save(path, transparency=1),
    "palette with alphas.png": lambda path: palette().save(path, transparency=bytes([255, 0])),
    # The value 1 of 2 bits, which Pillow reads as 85.
    "two bits.png": lambda path: palette().save(path, bits=2, transparency=1),
    "grey key.png": lambda path: in_grey(7).save(path, transparency=7),
    "one bit key.png": lambda path: in_grey(1, "1").save(path, transparency=1),
    "colour key.png": rgb,
    "16 bits key.png": deep,
    "lossless.webp": lambda path: drawing().save(path, lossless=True),
    "animation.gif": lambda path: drawing().save(path),
    "associated.tif": lambda path: drawing().save(path),
    "icon.ico": lambda path: drawing().save(path),
    "targa.tga": lambda path: drawing().save(path),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("channels", [1, 3])
def test_black_ink_on_nothing_is_black_on_white(way: str, channels: int, tmp_path: Path) -> None:
    WAYS[way](tmp_path / way)
    (pixels,) = as_prepared([tmp_path / way], (channels, SIZE, SIZE))
    assert (pixels[:, *INK] == 0).all()
    assert (pixels[:, 0, :] == 255).all()


def test_white_ink_on_nothing_is_white_on_black_and_a_given_colour_is_obeyed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ink.png"
    drawing(ink=255).save(path)
    assert as_prepared([path], (1, SIZE, SIZE))[0, 0, 0, 0] == 0
    given = DataConfig(background="#20a0ff")
    assert as_prepared([path], (3, SIZE, SIZE), given)[0, :, 0, 0].tolist() == [0x20, 0xA0, 0xFF]


def test_half_transparent_edges_mix_with_the_background_and_not_with_what_is_hidden(
    tmp_path: Path,
) -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = 100, 128
    path = write(tmp_path / "half.png", pixels)
    mixed = as_prepared([path], (1, 4, 4), DataConfig(background="white"))
    expected = 100 * 128 / 255 + 255 * 127 / 255
    assert np.abs(mixed.astype(float) - expected).max() <= 1


def folder_of(root: Path, transparent: int, opaque: int) -> Path:
    for index in range(transparent + opaque):
        name = root / "ab"[index % 2] / f"{index}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        image = drawing(ink=index)
        (image if index < transparent else image.convert("RGB")).save(name)
    return root


def test_one_transparent_file_among_many_makes_no_channel_unless_asked_for(tmp_path: Path) -> None:
    root = folder_of(tmp_path, transparent=1, opaque=19)
    loaded = load(root, image_size=SIZE)
    assert loaded.shape == (3, SIZE, SIZE)
    assert loaded.data is not None
    assert loaded.data.background == "white"
    (tally,) = loaded.reading.used_otherwise
    assert (tally.what, tally.number, tally.examples) == (
        "transparent images composited on white",
        1,
        ("a/0.png",),
    )
    assert load(root, image_size=SIZE, channels=4).shape == (4, SIZE, SIZE)
    assert load(root, image_size=SIZE, background="none").shape == (4, SIZE, SIZE)


def test_a_later_file_is_composited_on_what_the_training_images_chose(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "images", transparent=20, opaque=0)
    settled = load(root, image_size=SIZE).data
    light = tmp_path / "light.png"
    drawing(ink=255).save(light)
    prepared = prepare_readable([light], (3, SIZE, SIZE), settled)
    assert (prepared.pixels == 255).all()
    assert "composited on white" in prepared.used_otherwise[0].what


@pytest.mark.parametrize(("ground", "expected"), [(0, "black"), (255, "white")])
def test_a_set_of_opaque_images_has_later_ones_composited_on_its_own_ground(
    ground: int, expected: str, tmp_path: Path
) -> None:
    for index in range(20):
        pixels = np.full((SIZE, SIZE), ground, np.uint8)
        pixels[INK] = 255 - ground - index if ground == 0 else index
        write(tmp_path / "ab"[index % 2] / f"{index}.png", pixels)
    settled = load(tmp_path, image_size=SIZE).data
    assert settled is not None
    assert settled.background == expected
    path = tmp_path / "later.png"
    drawing(ink=ground).save(path)
    prepared = prepare_readable([path], (1, SIZE, SIZE), settled)
    whats = [tally.what for tally in prepared.used_otherwise]
    assert "transparent images of which nothing shows (--data.background)" in whats


def test_where_alpha_is_dropped_as_runs_did_before_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "ink.png"
    drawing(ink=0, hidden=0).save(path)
    before = DataConfig(background="none", value_range="0,65535", reading="suffix")
    prepared = prepare_readable([path], (1, SIZE, SIZE), before)
    assert not prepared.pixels.any()
    assert any("hidden colours" in tally.what for tally in prepared.used_otherwise)


def test_the_same_drawing_is_one_image_whichever_way_it_is_transparent(tmp_path: Path) -> None:
    for index, (way, save) in enumerate(WAYS.items()):
        path = tmp_path / "ab"[index % 2] / way
        path.parent.mkdir(exist_ok=True)
        save(path)
    assert "can't be split" in fault(tmp_path, image_size=SIZE)
    for index in range(4):
        drawing(ink=40 + index).save(tmp_path / "ab"[index % 2] / f"other {index}.png")
    loaded = load(tmp_path, image_size=SIZE)
    assert count(loaded).num_in_two_classes == len(WAYS)
