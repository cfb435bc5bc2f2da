"""Which rows an SVM is fitted on, where there are more than are worth their time."""

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError

_SEED = 0


def draw_rows(labels: NDArray[np.int64], most: int | None) -> NDArray[np.int64] | slice:
    """At most `most` of the rows of `labels` [N], in rising order; None: all of them.

    Every class is drawn by its share, and at least one row of each. The same labels give the same
    rows. Raises `UserError` for fewer rows than classes.
    """
    if most is None or len(labels) <= most:
        return slice(None)
    classes, counts = np.unique(labels, return_counts=True)
    if most < len(classes):
        raise UserError(
            f"--max_train {most}: {len(labels):,} images are of {len(classes):,} classes; expected "
            f"at least one of each class, and better some hundred"
        )
    generator = np.random.default_rng(_SEED)
    of_classes = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    drawn = [
        generator.choice(rows, share, replace=False)
        for rows, share in zip(of_classes, _shares(counts, most), strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _shares(counts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """How many of each class: one, and of the rest by its share, rounded so that all is drawn."""
    num_classes = len(counts)
    shares, left = np.divmod((most - num_classes) * (counts - 1), counts.sum() - num_classes)
    missing = most - num_classes - shares.sum()
    shares[np.argsort(-left, kind="stable")[:missing]] += 1
    total: NDArray[np.int64] = shares + 1
    return total
