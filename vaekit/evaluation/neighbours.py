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


def nearest_others(rows: NDArray[np.float32], k: int) -> Neighbours:
    """The k of `rows` [N, D] that lie nearest to each of them, itself left out.

    Raises `UserError` for fewer than k others, and for numbers that are not finite.
    """
    require_enough(k, len(rows) - 1)
    _require_finite(rows)
    search = NearestNeighbors(n_neighbors=k, algorithm=_METHOD).fit(rows)
    distances, indices = search.kneighbors()
    return Neighbours(indices.astype(np.int64, copy=False), distances.astype(np.float64))


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
