"""Splits: every item once, each class in proportion."""

import numpy as np
import pytest

from vaekit.images.splits import split


@pytest.mark.parametrize("num_held_out", [1, 7, 50, 99])
def test_every_item_is_on_one_side_and_each_class_in_proportion(num_held_out: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [1, 9, 30, 60]))
    kept, held_out = split(labels, num_held_out, seed=0)
    assert len(held_out) == num_held_out
    assert sorted([*kept, *held_out]) == list(range(100))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()
    share = np.bincount(labels) * num_held_out / 100
    assert np.abs(np.bincount(labels[held_out], minlength=4) - share).max() < 1
