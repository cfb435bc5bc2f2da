"""Exact nearest neighbours, in bounded memory."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from vaekit.errors import UserError

# Shapes in comments: N rows to search, B rows to search for, D features, k neighbours.

# Blocks of matrix products and a heap a row: scikit-learn holds no N x B distances.
_METHOD = "brute"


class Neighbours(NamedTuple):
    """The nearest rows, the nearest first, and their Euclidean distances."""

    indices: NDArray[np.int64]  # [B, k]
    distances: NDArray[np.float64]  # [B, k]


def nearest(rows: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> Neighbours:
    """The k of `rows` [N, D] that lie nearest to each of `queries` [B, D].

    Raises `UserError` for fewer than k rows, and for numbers that are not finite.
    """
    require_enough(k, len(rows))
    _require_finite(rows, queries)
    search = NearestNeighbors(n_neighbors=k, algorithm=_METHOD).fit(rows)
    distances, indices = search.kneighbors(queries)
    return Neighbours(indices.astype(np.int64, copy=False), distances.astype(np.float64))


def nearest_others(
    rows: NDArray[np.float32], k: int, of: NDArray[np.int64] | None = None
) -> Neighbours:
    """The k of `rows` [N, D] that lie nearest to each of them, or to those `of` some indices [B].

    A row is no neighbour of its own; an equal one is. Raises `UserError` for fewer than k others.
    """
    require_enough(k, len(rows) - 1)
    of = np.arange(len(rows)) if of is None else of
    found = nearest(rows, rows[of], k + 1)
    is_own = found.indices == of[:, None]
    is_own[~is_own.any(axis=1), k] = True  # more equal rows than neighbours: any may be left out
    return Neighbours(*(each[~is_own].reshape(len(of), k) for each in found))


def require_enough(k: int, count: int) -> None:
    """Raise `UserError` for a number of neighbours that `count` images can't give."""
    if not 1 <= k <= count:
        raise UserError(f"{k} neighbours (k): expected from 1 to {count:,}, for so many images")


def _require_finite(*arrays: NDArray[np.float32]) -> None:
    for array in arrays:
        if not np.isfinite(array).all():
            raise UserError(
                "latents hold NaN or infinity: expected finite numbers; the training of these "
                "weights went wrong, start it anew with a lower learning rate"
            )
