"""Exact nearest neighbours, in bounded memory."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from vaekit.errors import UserError

# Shapes in comments: N rows to search, B rows to search for, D features, k neighbours.

# Blocks of matrix products and a heap a row: scikit-learn holds no N x B distances.
_METHOD = "brute"
MAX_VALUES = 2**22  # of the rows that are searched at a time: 16 MB, and a copy of them


class Neighbours(NamedTuple):
    """The nearest rows, the nearest first, and their Euclidean distances."""

    indices: NDArray[np.int64]  # [B, k]
    distances: NDArray[np.float64]  # [B, k]


class Stacked:
    """Arrays of the same width, one after the other, as one [N, D] that takes no memory."""

    def __init__(self, *parts: NDArray[np.float32]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        found = np.empty((len(rows), self._parts[0].shape[1]), np.float32)
        first = 0
        for part in self._parts:
            is_here = (rows >= first) & (rows < first + len(part))
            found[is_here] = part[rows[is_here] - first]
            first += len(part)
        return found

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Some rows at a time, of their own memory."""
        for part in self._parts:
            size = max(1, MAX_VALUES // max(1, part.shape[1]))
            for start in range(0, len(part), size):
                yield np.ascontiguousarray(part[start : start + size])


Rows = NDArray[np.float32] | Stacked


def nearest(rows: Rows, queries: NDArray[np.float32], k: int) -> Neighbours:
    """The k of `rows` [N, D] that lie nearest to each of `queries` [B, D].

    Raises `UserError` for fewer than k rows, and for numbers that are not finite.
    """
    require_enough(k, len(rows))
    _require_finite(queries)
    nothing = np.empty((len(queries), 0))
    found = Neighbours(nothing.astype(np.int64), nothing)
    first = 0
    for block in (rows if isinstance(rows, Stacked) else Stacked(rows)).blocks():
        _require_finite(block)
        search = NearestNeighbors(n_neighbors=min(k, len(block)), algorithm=_METHOD).fit(block)
        distances, indices = search.kneighbors(queries)
        found = _nearer(found, Neighbours(indices + first, distances.astype(np.float64)), k)
        first += len(block)
    return found


def _nearer(found: Neighbours, others: Neighbours, k: int) -> Neighbours:
    """The k nearest of both."""
    indices, distances = (np.concatenate(each, axis=1) for each in zip(found, others, strict=True))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return Neighbours(*(np.take_along_axis(each, order, 1) for each in (indices, distances)))


def nearest_others(rows: Rows, k: int, of: NDArray[np.int64]) -> Neighbours:
    """The k of `rows` [N, D] that lie nearest to each of those `of` some indices [B].

    A row is no neighbour of its own; an equal one is. Raises `UserError` for fewer than k others.
    """
    require_enough(k, len(rows) - 1)
    found = nearest(rows, rows[of], k + 1)
    is_own = found.indices == of[:, None]
    is_own[~is_own.any(axis=1), k] = True  # more equal rows than neighbours: any may be left out
    return Neighbours(*(each[~is_own].reshape(len(of), k) for each in found))


def require_enough(k: int, count: int) -> None:
    """Raise `UserError` for a number of neighbours that `count` images can't give."""
    if not 1 <= k <= count:
        raise UserError(f"{k} neighbours (k): expected from 1 to {count:,}, for so many images")


def _require_finite(latents: NDArray[np.float32]) -> None:
    if not np.isfinite(latents).all():
        raise UserError(
            "latents hold NaN or infinity: expected finite numbers; the training of these "
            "weights went wrong, start it anew with a lower learning rate"
        )
