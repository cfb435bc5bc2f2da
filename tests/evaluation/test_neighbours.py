"""Neighbours are the nearest ones, all of them, and an image is none of its own."""

import numpy as np
import pytest

from vaekit.errors import UserError
from vaekit.evaluation.neighbours import nearest, nearest_others

ROWS = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
ALL = np.arange(300)
QUERIES = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)


def test_they_are_those_of_a_comparison_with_each_row() -> None:
    distances = np.linalg.norm(QUERIES[:, None].astype(np.float64) - ROWS[None], axis=2)
    found = nearest(ROWS, QUERIES, 7)
    np.testing.assert_array_equal(found.indices, np.argsort(distances, axis=1)[:, :7])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :7], rtol=1e-5)


def test_rows_far_from_the_origin_are_told_apart() -> None:
    far = np.float32(1000) + ROWS
    expected = np.linalg.norm(far[:, None].astype(np.float64) - far[None], axis=2)
    np.fill_diagonal(expected, np.inf)
    found = nearest_others(far, 3, ALL)
    np.testing.assert_array_equal(found.indices, np.argsort(expected, axis=1)[:, :3])


def test_a_row_is_no_neighbour_of_its_own_but_its_copy_is() -> None:
    rows = np.concatenate([ROWS, ROWS[:20]])
    found = nearest_others(rows, 5, np.arange(320))
    assert (found.indices != np.arange(320)[:, None]).all()
    np.testing.assert_array_equal(found.indices[:20, 0], np.arange(300, 320))
    np.testing.assert_array_equal(found.distances[:20, 0], 0)


@pytest.mark.parametrize("k", [0, 301])
def test_more_neighbours_than_images_are_refused(k: int) -> None:
    with pytest.raises(UserError, match=f"^{k} neighbours.*from 1 to 300"):
        nearest(ROWS, QUERIES, k)
    with pytest.raises(UserError, match=r"from 1 to 299"):
        nearest_others(ROWS, 300, ALL)


def test_latents_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="NaN or infinity"):
        nearest(ROWS, np.full((1, 4), np.nan, np.float32), 1)


def test_neighbours_of_some_rows_are_those_among_all() -> None:
    some = np.array([3, 50, 299])
    found, of_all = nearest_others(ROWS, 4, some), nearest_others(ROWS, 4, ALL)
    np.testing.assert_array_equal(found.indices, of_all.indices[some])
