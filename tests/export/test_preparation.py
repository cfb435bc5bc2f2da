"""What is said of the images is how the sets really are."""

import numpy as np
import pytest

from vaekit.config import DataConfig
from vaekit.export.preparation import preparation
from vaekit.images.sets import load_images


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "digits", "folder"])
def test_every_set_says_how_its_images_were_prepared(name: str) -> None:
    facts = preparation(DataConfig(name=name), (1, 28, 28))  # type: ignore[arg-type]
    assert facts["set"] == name
    assert facts["preparation"].endswith(".")
    assert (facts["height"], facts["width"]) == (28, 28)


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
