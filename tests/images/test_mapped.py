"""Rows of several arrays in any order are what one array of them would be."""

import numpy as np
import pytest

from vaekit.images.mapped import Mapped, MappedImages, blocks

GENERATOR = np.random.default_rng(0)
WHOLE = GENERATOR.integers(0, 256, (23, 3, 2, 5), dtype=np.uint8)
PLACES = GENERATOR.permutation(23)[:17]
EXPECTED = WHOLE[PLACES]
MAPPED = Mapped(np.split(WHOLE, [4, 5, 5, 19]), PLACES)


@pytest.mark.parametrize(
    "which",
    [
        3, -1, slice(None), slice(2, 9), slice(9, 2), slice(None, None, -3),
        np.array([5, 5, 0, 16, -1]), np.array([], np.int64), np.array([[1, 2], [3, 4]]),
        PLACES[:9] % 2 == 0,
    ],
    ids=str,
)  # fmt: skip
def test_rows_are_taken_as_from_one_array(which: object) -> None:
    if isinstance(which, np.ndarray) and which.dtype == bool:
        which = np.resize(which, len(MAPPED))
    np.testing.assert_array_equal(MAPPED[which], EXPECTED[which])  # type: ignore[index]


def test_it_looks_like_one_array() -> None:
    for name in ("shape", "dtype", "nbytes", "size"):
        assert getattr(MAPPED, name) == getattr(EXPECTED, name)
    assert len(MAPPED) == len(EXPECTED)
    np.testing.assert_array_equal(np.asarray(MAPPED), EXPECTED)
    np.testing.assert_array_equal(np.concatenate(list(blocks(MAPPED))), EXPECTED)


def test_some_rows_are_chosen_without_being_taken() -> None:
    tables = [np.arange(len(part)) for part in MAPPED.parts]
    images = MappedImages(MAPPED.parts, tables, PLACES)
    chosen = images.select(slice(4, 12)).select(np.array([7, 0, 3]))
    np.testing.assert_array_equal(chosen[:], EXPECTED[4:12][[7, 0, 3]])
    np.testing.assert_array_equal(chosen.table[:], np.concatenate(tables)[PLACES][4:12][[7, 0, 3]])
    out = np.zeros((2, 3, 2, 5), np.uint8)
    images.take_into(np.array([3, 16]), out)
    np.testing.assert_array_equal(out, EXPECTED[[3, 16]])


def test_what_is_taken_is_a_copy() -> None:
    taken = MAPPED[:]
    taken[:] = 0
    np.testing.assert_array_equal(MAPPED[:], EXPECTED)
