"""The explorer page: how it prepares drawings, in Node, and all of it in a real Chromium."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
from browser_helpers import require_chromium, require_node
from conftest import ROOT, run_command
from damage_helpers import data_flipped
from image_helpers import as_prepared
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from vaekit.config import DataConfig, Fit
from vaekit.export.preparation import preparation
from vaekit.images.idx import read_idx_set

Pixels = NDArray[np.uint8]
Facts = dict[str, Any]  # the manifest's "image"

PREPARE = f"""
import {{ readFileSync }} from "node:fs";
import {{ isInkDark, prepare }} from "{(ROOT / "export/explorer/prepare.mjs").as_uri()}";
const {{ drawings, facts, others }} = JSON.parse(readFileSync(0));
const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));
const inkIsDark = isInkDark(facts, bytes(others));
const images = drawings.map(({{ ink, height, width }}) =>
  prepare({{ ink: bytes(ink), height, width }}, facts, inkIsDark));
console.log(JSON.stringify(images.map((image) => image && Array.from(image))));
"""

LIGHT_ON_DARK = {"height": 28, "width": 28, "polarity": "light on dark", "resize_filter": None}
MNIST = {**LIGHT_ON_DARK, "centring": {"box": 20, "by": "centre of mass"}}
DIGITS = {
    **LIGHT_ON_DARK,
    "centring": {"box": 28, "by": "bounding box"},
    "resize_filter": "bilinear",
}
WHOLE = {**LIGHT_ON_DARK, "centring": None}
FOLDER = {
    "height": 24,
    "width": 32,
    "polarity": "as in the files",
    "resize_filter": "bilinear",
    "centring": None,
}


def prepared(drawings: list[Pixels], facts: Facts, others: Pixels | None = None) -> list[Pixels]:
    """What the page makes of drawings, ink [height, width] each, where it shows test images."""
    given = {
        "drawings": [
            {"ink": as_base64(ink), "height": ink.shape[0], "width": ink.shape[1]}
            for ink in drawings
        ],
        "facts": facts,
        "others": as_base64(np.zeros(1, np.uint8) if others is None else others),
    }
    shape = facts["height"], facts["width"]
    return [np.array(image, np.uint8).reshape(shape) for image in in_node(PREPARE, given)]


def in_node(script: str, given: Any) -> Any:
    """What a module makes of the JSON that it reads."""
    result = subprocess.run(
        [require_node(), "--input-type=module", "--eval", script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def as_base64(array: Pixels) -> str:
    return base64.b64encode(array.tobytes()).decode()


def expected(ink: Pixels, facts: Facts) -> Pixels:
    """The same by other means: integrals or Pillow to resize, SciPy to find the ink."""
    shape = facts["height"], facts["width"]
    if facts["centring"] is None:
        return resized(ink, shape, facts["resize_filter"])
    (bounds,) = ndimage.find_objects((ink > 0).astype(int))
    crop = ink[bounds]
    scale = facts["centring"]["box"] / max(crop.shape)
    small_shape = [max(1, int(side * scale + 0.5)) for side in crop.shape]
    small = resized(crop, small_shape, facts["resize_filter"])
    room = [field - side for field, side in zip(shape, small.shape, strict=True)]
    if facts["centring"]["by"] == "bounding box":
        top, left = (space // 2 for space in room)
    else:
        top, left = (
            np.abs(np.arange(space + 1) + centre - field / 2).argmin()
            for space, centre, field in zip(
                room, ndimage.center_of_mass(small.astype(float)), shape, strict=True
            )
        )
    image = np.zeros(shape, np.uint8)
    image[top : top + small.shape[0], left : left + small.shape[1]] = small
    return image


def resized(ink: Pixels, shape: Any, resize_filter: str | None) -> Pixels:
    if resize_filter == "bilinear":
        return np.asarray(Image.fromarray(ink).resize(shape[::-1], Image.Resampling.BILINEAR))
    values = ink.astype(float)
    for axis, side in enumerate(shape):
        values = np.apply_along_axis(means, axis, values, side)
    return np.rint(values).astype(np.uint8)


def means(line: NDArray[np.float64], num: int) -> NDArray[np.float64]:
    """A line cut into `num` equal parts: the mean of each, of a whole number of pixels or not."""
    integral = np.concatenate([[0], line.cumsum()])
    ends = np.linspace(0, len(line), num + 1)
    parts: NDArray[np.float64] = np.diff(np.interp(ends, np.arange(len(integral)), integral))
    return parts * num / len(line)


def strokes(seed: int, size: tuple[int, int] = (560, 560)) -> Pixels:
    """A few thick lines anywhere on the sheet, over its edges too."""
    generator = np.random.default_rng(seed)
    sheet = Image.new("L", size)
    points = [tuple(point) for point in generator.uniform(-20, 580, (4, 2))]
    ImageDraw.Draw(sheet).line(points, fill=255, width=int(generator.integers(10, 60)))
    return np.asarray(sheet.resize(size, Image.Resampling.BOX))


def mark(top: int, left: int, height: int, width: int) -> Pixels:
    ink = np.zeros((560, 560), np.uint8)
    ink[top : top + height, left : left + width] = 255
    return ink


DRAWINGS = [
    *map(strokes, range(12)),
    mark(0, 0, 30, 560),
    mark(100, 500, 400, 20),
    mark(270, 310, 5, 3),
    mark(559, 559, 1, 1),
    np.maximum(mark(20, 20, 60, 400), mark(20, 20, 500, 30)),  # its mass far off its middle
]


@pytest.mark.slow
@pytest.mark.parametrize("facts", [MNIST, DIGITS, WHOLE], ids=["mnist", "digits", "whole"])
def test_a_drawing_is_prepared_as_the_manifest_says(facts: Facts) -> None:
    for image, ink in zip(prepared(DRAWINGS, facts), DRAWINGS, strict=True):
        np.testing.assert_allclose(image.astype(int), expected(ink, facts), atol=1)
        assert image.max() > 0 or facts is WHOLE  # a speck of a whole sheet may vanish


@pytest.mark.slow
def test_a_drawing_is_dark_on_light_where_the_images_are() -> None:
    paper = np.full((3, 24, 32), 250, np.uint8)
    paper[:, 8:16] = 3
    light = prepared(DRAWINGS, FOLDER, 255 - paper)
    for image, ink in zip(light, DRAWINGS, strict=True):
        np.testing.assert_allclose(image.astype(int), expected(ink, FOLDER), atol=1)
    for image, opposite in zip(prepared(DRAWINGS, FOLDER, paper), light, strict=True):
        np.testing.assert_array_equal(image, 255 - opposite)


def test_mass_is_centred_and_no_ink_is_lost() -> None:
    for image in prepared(DRAWINGS, MNIST):
        rows, columns = ndimage.find_objects((image > 0).astype(int))[0]
        assert max(rows.stop - rows.start, columns.stop - columns.start) == 20
        for centre, span in zip(
            ndimage.center_of_mass(image.astype(float)), (rows, columns), strict=True
        ):
            assert 13.5 <= centre < 14.5 or span.start == 0 or span.stop == 28


@pytest.mark.slow
def test_preparing_a_prepared_image_changes_nothing() -> None:
    once = prepared(DRAWINGS, MNIST)
    for image, again in zip(once, prepared(once, MNIST), strict=True):
        np.testing.assert_array_equal(again, image)


def test_mnist_own_images_are_left_as_they_are() -> None:
    root = Path(os.environ.get("VAEKIT_MNIST_ROOT", ROOT / "data"))
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip("no real MNIST: set VAEKIT_MNIST_ROOT to the folder that holds MNIST/raw")
    images = read_idx_set(DataConfig(root=str(root)), download=False).test_pixels[:2000]
    unchanged = [
        np.array_equal(image, own)
        for image, own in zip(prepared(list(images), MNIST), images, strict=True)
    ]
    assert np.mean(unchanged) > 0.995  # the others are up to two pixels short of the box
    enlarged = [np.kron(image, np.ones((20, 20), np.uint8)) for image in images[:20]]
    for image, own in zip(prepared(enlarged, MNIST), images[:20], strict=True):
        np.testing.assert_array_equal(image, own)


PREPARE_FILE = f"""
import {{ readFileSync }} from "node:fs";
import {{ prepareFile }} from "{(ROOT / "export/explorer/files.mjs").as_uri()}";
const [files, sets] = JSON.parse(readFileSync(0));
const pixels = files.map(({{ data, height, width }}) =>
  ({{ data: Buffer.from(data, "base64"), height, width }}));
console.log(JSON.stringify(sets.map(({{ facts, ground }}) =>
  pixels.map((file) => Array.from(prepareFile(file, facts, ground))))));
"""


def test_an_image_file_is_prepared_as_vaekit_prepares_it(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    paths, files = [], []
    for size in ((50, 31), (9, 13), (20, 70)):
        coarse = generator.integers(0, 256, (4, 4, 4)).astype(np.uint8)
        image = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        paths.append(tmp_path / f"{size[0]}.png")
        image.save(paths[-1])
        files.append({"data": as_base64(np.asarray(image)), "height": size[0], "width": size[1]})
    sets = [
        (channels, DataConfig(name="folder", fit=how, background=background, value_range="0,255"))
        for channels, background in ((1, "#20a0ff"), (2, "none"), (3, "#20a0ff"), (4, "none"))
        for how in get_args(Fit)
    ]
    given = [
        {
            "facts": preparation(data, (channels, 12, 17)),
            "ground": None if data.background == "none" else [32, 160, 255],
        }
        for channels, data in sets
    ]
    for (channels, data), images in zip(sets, in_node(PREPARE_FILE, [files, given]), strict=True):
        found = np.array(images).reshape(-1, channels, 12, 17)
        wanted = as_prepared(paths, (channels, 12, 17), data).astype(int)
        if channels in (2, 4):  # colours as they show: under little alpha they are rounded more
            for image in (found, wanted):
                image[:, :-1] = image[:, :-1] * image[:, -1:] // 255
        assert np.abs(found - wanted).max() <= 2, (channels, data.fit)


LINK = f"""
import {{ readFileSync }} from "node:fs";
import {{ linkTo, readLink }} from "{(ROOT / "export/explorer/link.mjs").as_uri()}";
console.log(JSON.stringify(JSON.parse(readFileSync(0)).map((hash) => {{
  const {{ picked, latent }} = readLink(hash, 5, 3);
  return [picked, latent && Array.from(latent), latent && linkTo({{ picked, latent }})];
}})));
"""
LINKS: dict[str, tuple[int | None, list[float] | None]] = {
    "#image=4&z=0.5,-1.25,3": (4, [0.5, -1.25, 3]),
    "#z=0,0,-0.001": (None, [0, 0, -0.001]),
    "#image=5&z=1,2": (None, None),
    "#image=-1&z=1,2,NaN": (None, None),
    "": (None, None),
    "#image=1.5&z=a,b,c": (None, None),
}


def test_a_link_holds_the_image_and_the_latent_or_is_ignored() -> None:
    for (hash_, (picked, latent)), found in zip(
        LINKS.items(), in_node(LINK, [*LINKS]), strict=True
    ):
        held = latent and pytest.approx(latent)
        assert found == [picked, held, latent and hash_], hash_


READ_SAMPLES = f"""
import {{ readFileSync }} from "node:fs";
import {{ readSamples }} from "{(ROOT / "export/explorer/samples.mjs").as_uri()}";
console.log(JSON.stringify(JSON.parse(readFileSync(0)).map((content) => {{
  try {{
    readSamples(content);
  }} catch (error) {{
    return String(error);
  }}
}})));
"""


def test_samples_of_another_format_are_refused_naming_what_was_found() -> None:
    contents = [
        {"format": "vaekit-explorer", "format_version": 2},
        {"format": "vaekit-golden", "format_version": 1},
        None,
    ]
    names = (
        "vaekit-explorer, version 2",
        "vaekit-golden, version 1",
        "undefined, version undefined",
    )
    for name, error in zip(names, in_node(READ_SAMPLES, contents), strict=True):
        assert error.startswith(f"Error: explorer.json says format {name}; this page reads ")


@pytest.mark.slow
def test_the_page_does_what_it_shows(rounded_run: Path, tmp_path: Path) -> None:
    from vaekit.export.explore import EXPORT, bundle_routes, page_routes, serving

    bundle = rounded_run / "onnx-fp16"
    node, chromium = require_node("playwright-core"), require_chromium()
    (tmp_path / "expected.json").write_text(json.dumps(outputs_in_python(bundle)))
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    data_flipped(damaged / "encoder.onnx")
    page = page_routes(EXPORT)
    with serving(page | bundle_routes(bundle)) as url, serving(page) as empty_url:
        result = run_command(
            [node, ROOT / "tests" / "explorer.test.mjs"],
            CHROMIUM=str(chromium),
            PAGE=url,
            EMPTY_PAGE=empty_url,
            BUNDLE=str(bundle),
            PYTHON=sys.executable,
            DAMAGED=str(damaged),
            EXPECTED=str(tmp_path / "expected.json"),
        )
    assert result.returncode == 0, result.stdout + result.stderr


def outputs_in_python(bundle: Path) -> dict[str, Any]:
    """The labels of the page's test images, and the image at the centre of the latent space."""
    samples = json.loads((bundle / "explorer.json").read_text())["images"]
    pixels = np.frombuffer(base64.b64decode(samples["data"]), np.uint8).reshape(samples["shape"])
    classifier = onnxruntime.InferenceSession(bundle / "classifier.onnx")
    (labels,) = classifier.run(["label"], {"image": pixels})
    decoder = onnxruntime.InferenceSession(bundle / "decoder.onnx")
    (centre,) = decoder.run(["image"], {"latent": np.zeros((1, 3), np.float32)})
    return {
        "labels": [str(label) for label in labels],
        "centre": np.rint(255 * centre).ravel().tolist(),
    }
