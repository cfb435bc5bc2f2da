"""Of too many rows some are drawn, every class by its share."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedShuffleSplit

from vaekit.errors import UserError
from vaekit.svm.draw import draw_rows


def mixed(*counts: int) -> NDArray[np.int64]:
    """So many labels of each class, in a random order."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


def test_every_class_keeps_its_share_as_with_scikit_learn() -> None:
    labels = mixed(600, 300, 100)
    split = StratifiedShuffleSplit(1, train_size=100, test_size=100, random_state=0)
    expected = labels[next(split.split(labels[:, None], labels))[0]]
    drawn = draw_rows(labels, 100)
    np.testing.assert_allclose(np.bincount(labels[drawn]), np.bincount(expected), atol=1)
    assert (np.diff(drawn) > 0).all()


@pytest.mark.parametrize("most", [4, 5, 50, 1000, 1002])
def test_exactly_so_many_are_drawn_and_no_class_is_lost(most: int) -> None:
    labels = mixed(900, 100, 1, 2)
    counts = np.bincount(labels[draw_rows(labels, most)])
    assert counts.sum() == most
    assert (counts >= 1).all()
    assert (counts <= [900, 100, 1, 2]).all()


def test_the_same_labels_give_the_same_rows_and_not_the_first_ones() -> None:
    labels = mixed(500, 500)
    drawn = draw_rows(labels, 100)
    np.testing.assert_array_equal(drawn, draw_rows(labels, 100))
    assert drawn[-1] > 500


@pytest.mark.parametrize("most", [None, 1000, 10**12])
def test_no_more_rows_than_are_wanted_are_all_taken(most: int | None) -> None:
    assert draw_rows(mixed(500, 500), most) == slice(None)


def test_fewer_than_classes_are_refused() -> None:
    with pytest.raises(UserError, match="max_train 2: 30 images are of 3 classes"):
        draw_rows(mixed(10, 10, 10), 2)
