"""Splits of an image set in two, with each class in proportion."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FIXED_SEED = 0  # of the splits and orders that must not change with the seed of a run


class Split(NamedTuple):
    """Sorted indices of all items: what is kept and what is held out."""

    kept: NDArray[np.int64]
    held_out: NDArray[np.int64]


def split(labels: NDArray[np.int64], num_held_out: int, seed: int) -> Split:
    """Hold out a random sample with the share of each class in `labels` [N] kept to within one.

    Evenly spaced picks from the items sorted by class; it takes any class sizes, down to one item.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    held_out = np.sort(by_class[np.arange(num_held_out) * len(labels) // num_held_out])
    return Split(np.delete(np.arange(len(labels)), held_out), held_out)
