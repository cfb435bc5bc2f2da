"""Splits of an image set in two, with each class in proportion."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError

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


def split_groups(
    labels: NDArray[np.int64], groups: NDArray[np.int64], num_held_out: int, seed: int
) -> Split:
    """`split` that keeps items of one group on one side, and an item of each class.

    `groups` [N] are numbers of groups from 0. Where each item is a group of its own and each class
    has an item left, it is `split`. About `num_held_out` are held out, none where all must be kept.
    """
    first = np.unique(groups, return_index=True)[1]
    num_groups = len(first)
    num_held_out = min(max(1, round(num_held_out * num_groups / len(labels))), num_groups)
    if num_groups < 2:
        return Split(np.arange(len(labels)), np.zeros(0, np.int64))
    out = np.zeros(num_groups, bool)
    out[split(labels[first], num_held_out, seed).held_out] = True
    for label in np.setdiff1d(labels, labels[~out[groups]]):
        of_class = np.unique(groups[labels == label])
        if out[of_class].all():
            out[of_class[0]] = False
    is_out = out[groups]
    return Split(np.flatnonzero(~is_out), np.flatnonzero(is_out))


def hold_out_a_tenth(
    labels: NDArray[np.int64], groups: NDArray[np.int64] | None, seed: int, root: object
) -> Split:
    """What is tested on where a set has no test images; `groups` stay together, if there are any.

    Raises `UserError`, naming the set by its `--data.root`, where none can be held out.
    """
    count = len(labels)
    if count < 2:
        raise UserError(
            f"--data.root {root}: one image can't be split into a training and a test set; "
            f"add images"
        )
    num_held_out = max(1, round(0.1 * count))
    if groups is None:
        return split(labels, num_held_out, seed)
    chosen = split_groups(labels, groups, num_held_out, seed)
    if not len(chosen.held_out):
        raise UserError(
            f"--data.root {root}: {count} images can't be split into a training and a test set "
            f"that share no equal images and no file, with each class in training; add images"
        )
    return chosen
