"""The lines of a bundle's README prepare image files as vaekit itself does."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundle_helpers import facts_of
from image_helpers import as_prepared, write
from PIL import Image

from vaekit.config import DataConfig
from vaekit.export.bundle import readme
from vaekit.export.preparation import preparation

STATED = 2  # levels of 255, by which OpenCV's lines may be off

PATCH = {"name": "folder", "background": "white", "value_range": "0,4095"}
SETTINGS: dict[str, tuple[DataConfig, int]] = {
    "grey": (DataConfig(**PATCH), 1),
    "colour": (DataConfig(**PATCH | {"background": "#20a0ff"}), 3),
    "colour, padded": (DataConfig(**PATCH | {"fit": "pad", "background": "#20a0ff"}), 3),
    "grey, padded": (DataConfig(**PATCH | {"fit": "pad"}), 1),
    "colour, cropped": (DataConfig(**PATCH | {"fit": "crop"}), 3),
    "grey, cropped": (DataConfig(**PATCH | {"fit": "crop"}), 1),
    "hidden colours": (DataConfig(**PATCH | {"background": "none", "fit": "pad"}), 3),
    "grey with alpha": (DataConfig(**PATCH | {"background": "none", "fit": "pad"}), 2),
    "colour with alpha": (DataConfig(**PATCH | {"background": "none"}), 4),
}
SHAPE = (9, 13)


def picture(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """Large and small structure, and values at both ends."""
    generator = np.random.default_rng(seed)
    coarse = np.kron(generator.integers(0, 256, (4, 4, channels)), np.ones((16, 16, 1)))
    noise = generator.normal(scale=40, size=(height, width, channels))
    return np.clip(coarse[:height, :width] + noise, 0, 255).astype(np.uint8)


def write_opaque(folder: Path) -> list[Path]:
    """Files of 8 bits a channel, larger and smaller than what they become."""
    paths = []
    for channels, mode in ((1, "grey"), (3, "colour")):
        for size in ((61, 47), (40, 64), (9, 13), (5, 6), (64, 20)):
            pixels = picture(*size, channels).squeeze()
            paths.append(write(folder / f"{mode}-{size[0]}x{size[1]}.png", pixels))
    turned = Image.Exif()
    turned[0x0112] = 6
    return [*paths, write(folder / "turned.jpg", picture(50, 30, 3), exif=turned)]


def write_others(folder: Path) -> list[Path]:
    """Transparent files, and one of more than 8 bits."""
    palette = folder / "palette.png"
    Image.fromarray(picture(40, 33, 3)).quantize(16).save(palette, transparency=3)
    deep = picture(40, 33, 1).squeeze().astype(np.uint16) * 20
    pixels = {"rgba": picture(40, 33, 4), "la": picture(40, 33, 2), "deep": deep}
    return [palette, *(write(folder / f"{name}.png", each) for name, each in pixels.items())]


def recipes(exported_run: Path, data: DataConfig, channels: int) -> dict[str, Callable]:
    """`prepare` of the README, by the library that it takes."""
    facts = facts_of(exported_run / "onnx") | {"image": preparation(data, (channels, *SHAPE))}
    blocks = re.findall(r"```python\n(.*?)```", readme(facts), re.DOTALL)
    found = {}
    for block in blocks:
        if "def prepare" in block:
            names: dict[str, Callable] = {}
            exec(compile(block, "README.md", "exec"), names)
            found["OpenCV" if "import cv2" in block else "Pillow"] = names["prepare"]
    return found


@pytest.mark.parametrize(("data", "channels"), SETTINGS.values(), ids=SETTINGS)
def test_the_lines_for_pillow_prepare_every_file_to_the_last_bit(
    data: DataConfig, channels: int, exported_run: Path, tmp_path: Path
) -> None:
    prepare = recipes(exported_run, data, channels)["Pillow"]
    paths = write_opaque(tmp_path) + write_others(tmp_path)
    if data.background.startswith("#"):  # on which vaekit keeps grey files grey
        paths.remove(tmp_path / "la.png")
    expected = as_prepared(paths, (channels, *SHAPE), data)
    for path, pixels in zip(paths, expected, strict=True):
        np.testing.assert_array_equal(prepare(str(path)), pixels, err_msg=path.name)


@pytest.mark.parametrize(("data", "channels"), SETTINGS.values(), ids=SETTINGS)
def test_the_lines_for_opencv_are_within_what_is_stated(
    data: DataConfig, channels: int, exported_run: Path, tmp_path: Path
) -> None:
    found = recipes(exported_run, data, channels)
    if channels in (2, 4) or data.fit == "pad":
        assert set(found) == {"Pillow"}
        return
    paths = write_opaque(tmp_path)
    expected = as_prepared(paths, (channels, *SHAPE), data).astype(int)
    prepared = np.stack([found["OpenCV"](str(path)) for path in paths])
    assert prepared.dtype == np.uint8
    assert np.abs(prepared - expected).max(axis=(1, 2, 3)).tolist() <= [STATED] * len(paths)


@pytest.mark.parametrize("name", ["mnist", "arrays"])
def test_of_a_set_that_is_no_files_they_are_for_opaque_files_of_8_bits(
    name: str, exported_run: Path, tmp_path: Path
) -> None:
    data = DataConfig(name=name)  # type: ignore[arg-type]
    found = recipes(exported_run, data, 1)
    paths = write_opaque(tmp_path)
    expected = as_prepared(paths, (1, *SHAPE), data)
    prepared = [found["Pillow"](str(path)) for path in paths]
    np.testing.assert_array_equal(prepared, expected)
    facts = facts_of(exported_run / "onnx") | {"image": preparation(data, (1, *SHAPE))}
    text = readme(facts)
    assert "an opaque file of 8 bits a channel" in text
    assert ("apart from the centring" in text) == (name == "mnist")


def test_the_readme_states_the_difference(exported_run: Path) -> None:
    assert f"within {STATED} of 255 levels" in (exported_run / "onnx" / "README.md").read_text()
