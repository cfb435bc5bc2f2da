"""The digits are scikit-learn's, split the same way for every run."""

from pathlib import Path

import numpy as np
from image_helpers import load
from sklearn.datasets import load_digits


def test_digits_at_their_own_size_are_those_of_scikit_learn(tmp_path: Path) -> None:
    digits = load(tmp_path, "digits", image_size=8)
    theirs = load_digits()
    expected = {
        (np.round(image * 255 / 16).astype(np.uint8).tobytes(), label)
        for image, label in zip(theirs.images, theirs.target.tolist(), strict=True)
    }
    ours = set()
    for pixels, labels, _ in (digits.train, digits.test):
        assert labels is not None
        ours |= {(p.tobytes(), label) for p, label in zip(pixels, labels.tolist(), strict=True)}
    assert ours == expected
    assert len(digits.train.pixels) + len(digits.test.pixels) == len(theirs.images)
    assert digits.class_names == tuple("0123456789")


def test_digits_are_split_in_proportion_and_the_same_for_every_seed(tmp_path: Path) -> None:
    digits = load(tmp_path, "digits", seed=0)
    assert digits.shape == (1, 28, 28)
    assert len(digits.test.pixels) == 359  # a fifth of 1797
    assert digits.train.labels is not None
    assert digits.test.labels is not None
    counts = np.bincount(digits.test.labels), np.bincount(digits.train.labels)
    assert np.abs(counts[0] - 0.2 * (counts[0] + counts[1])).max() <= 1
    assert load(tmp_path, "digits", seed=1).sha256() == digits.sha256()
