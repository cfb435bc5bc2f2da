"""What is said of the images is how the sets really are."""

from typing import get_args

import numpy as np
import pytest

from vaekit.config import DataConfig, Fit, ImageSetName
from vaekit.export.preparation import preparation
from vaekit.images.sets import IMAGE_SETS, load_images

NAMES: tuple[ImageSetName, ...] = get_args(ImageSetName)


@pytest.mark.parametrize("name", NAMES)
def test_every_set_says_how_its_images_were_prepared(name: ImageSetName) -> None:
    size = IMAGE_SETS[name].size or 20
    facts = preparation(DataConfig(name=name), (1, size, size))
    assert facts["set"] == name
    assert facts["preparation"].endswith(".")
    assert f"{size}x{size}" in facts["preparation"]
    assert (facts["height"], facts["width"]) == (size, size)


@pytest.mark.parametrize(
    ("name", "polarity", "resize_filter", "centring"),
    [
        ("mnist", "light on dark", None, {"box": 20, "by": "centre of mass"}),
        ("fashion-mnist", "light on dark", None, None),
        ("kmnist", "light on dark", None, None),
        ("digits", "light on dark", "bilinear", {"box": 28, "by": "bounding box"}),
        ("folder", "as in the files", "bilinear", None),
    ],
)
def test_applications_prepare_a_drawing_as_the_set_was(
    name: ImageSetName,
    polarity: str,
    resize_filter: str | None,
    centring: dict[str, int | str] | None,
) -> None:
    facts = preparation(DataConfig(name=name), (1, 28, 28))
    assert facts["polarity"] == polarity
    assert facts["resize_filter"] == resize_filter
    assert facts["centring"] == centring


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        ("stretch", "whole, to 8x24 pixels; its aspect is not kept"),
        ("pad", "until it fits into 8x24 pixels, its aspect kept, and padded"),
        ("crop", "until it fills 8x24 pixels, its aspect kept; its middle is used"),
    ],
)
def test_applications_are_told_what_the_files_of_a_folder_went_through(
    fit: Fit, words: str
) -> None:
    data = DataConfig(
        name="folder", image_size="8,24", fit=fit, background="white", value_range="0,4095"
    )
    facts = preparation(data, (3, 8, 24))
    assert (facts["fit"], facts["background"]) == (fit, "white")
    assert facts["file_value_range"] == [0, 4095]
    assert words in facts["preparation"]
    assert "Transparent images are composited on white first." in facts["preparation"]
    assert "0 to 4095 become 0 to 255" in facts["preparation"]
    assert preparation(data, (4, 8, 24))["background"] is None


@pytest.mark.parametrize(
    ("channels", "names"),
    [
        (1, ["grey"]),
        (2, ["grey", "alpha"]),
        (3, ["red", "green", "blue"]),
        (4, ["red", "green", "blue", "alpha"]),
    ],
)
def test_channels_are_named_in_their_order(channels: int, names: list[str]) -> None:
    assert preparation(DataConfig(name="folder"), (channels, 9, 9))["channels"] == names


def test_digits_fill_their_box_and_are_light_on_dark() -> None:
    facts = preparation(DataConfig(name="digits"), (1, 28, 28))
    pixels = load_images(DataConfig(name="digits"), seed=0).test.pixels[:, 0]
    assert facts["polarity"] == "light on dark"
    assert pixels[:, :2, :2].mean() < pixels[:, 10:18, 10:18].mean()
    rows = [np.flatnonzero(image.max(axis=1) > 40) for image in pixels]
    heights = [row[-1] - row[0] + 1 for row in rows]
    assert facts["centring"]["box"] - 2 < np.mean(heights) <= facts["centring"]["box"]
