"""What looks unlike a training set is noticed, and what looks like it is not."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_sample_images

from vaekit.images.appearance import compare, measure

Pixels = NDArray[np.uint8]


def digits(scale: int = 1) -> Pixels:
    images = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)[:, None]
    return images.repeat(scale, axis=2).repeat(scale, axis=3)


def photos(size: int = 20) -> Pixels:
    """Patches of scikit-learn's two photographs, in a random order."""
    patches = [
        image[top : top + size, left : left + size]
        for image in load_sample_images().images
        for top in range(0, 400, size)
        for left in range(0, 620, size)
    ]
    order = np.random.default_rng(0).permutation(len(patches))
    return np.stack(patches)[order].transpose(0, 3, 1, 2)


@pytest.mark.parametrize("num_train", [60, 300, 1400])
@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("dark_ink", [False, True])
def test_inverted_digits_are_all_noticed_and_plain_ones_are_not(
    num_train: int, scale: int, dark_ink: bool
) -> None:
    pixels = digits(scale)[::-1]
    pixels = 255 - pixels if dark_ink else pixels
    looks = measure(pixels[:num_train])
    others = pixels[-397:]
    plain, inverted = compare(others, looks), compare(255 - others, looks)
    assert plain.num_inverted == 0
    assert plain.num_unlike <= (0.02 * len(others) if num_train > 100 else 0.1 * len(others))
    assert inverted.num_inverted == len(others) - plain.num_unlike
    assert inverted.num_unlike == plain.num_unlike


def test_photographs_which_have_no_polarity_give_no_false_alarm() -> None:
    pixels = photos()
    looks = compare(pixels[800:], measure(pixels[:800]))
    assert looks.num_inverted <= 0.005 * len(pixels[800:])
    assert looks.num_unlike <= 0.02 * len(pixels[800:])


def test_photographs_are_no_digits() -> None:
    grey = photos(24).mean(axis=1, keepdims=True).astype(np.uint8)
    looks = compare(grey, measure(digits(3)))
    assert sum(looks) > 0.9 * len(grey)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_equal_images_have_a_range_and_look_like_themselves(value: int) -> None:
    pixels = np.full((3, 1, 8, 11), value, np.uint8)
    assert sum(compare(pixels, measure(pixels))) == 0
