"""Images of equal pixels: which they are, and on which sides of a split."""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.images.mapped import MappedImages, PixelArray, blocks


class Copies(NamedTuple):
    """How many images equal another one, and where that one is."""

    within: int  # one of the same side, beyond the first
    test_in_train: int
    validation_in_train: int
    in_two_classes: int


class Side(NamedTuple):
    """Digests [N, 2] of images, and their labels [N]."""

    digests: NDArray[np.uint64]
    labels: NDArray[np.int64] | None


def digests(pixels: PixelArray) -> NDArray[np.uint64]:
    """A hash [N, 2] of each image [N, ...]: equal for equal pixels. Mapped images have theirs."""
    if isinstance(pixels, MappedImages):
        return pixels.table.column("digest")
    found = [
        hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        for block in blocks(pixels)
        for image in block
    ]
    return np.frombuffer(b"".join(found), np.uint64).reshape(-1, 2)


def groups_of(
    found: NDArray[np.uint64], together: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """A number [N] for each digest of an image; the same for equal ones and those of one number.

    `together` [N] are numbers of what belongs together anyway, as the pages of a file.
    """
    first_equal = _first_equal(found)
    if together is None or len(np.unique(together)) == len(together):
        return _numbered(first_equal)
    _, firsts, numbers = np.unique(together, return_index=True, return_inverse=True)
    first_together = firsts[numbers]
    own = np.arange(len(found))
    later = np.flatnonzero((first_equal != own) | (first_together != own))
    # Views, whose items are plain numbers: a list of all would take five times as much.
    parents, equals, others = own.data, first_equal.data, first_together.data

    def root(item: int) -> int:
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    for index in later.data:
        for first in (equals[index], others[index]):
            parents[root(index)] = root(first)
    while ((above := own[own]) != own).any():
        own = above
    return _numbered(own)


def count_copies(train: Side, validation: Side | None, test: Side) -> Copies:
    """Of the images of each side and their labels."""
    sides = [train, *([] if validation is None else [validation]), test]
    numbers = _numbered(_first_equal(np.concatenate([side.digests for side in sides])))
    ends = np.cumsum([len(side.digests) for side in sides])
    of_side = np.split(numbers, ends[:-1])
    in_train = np.zeros(len(numbers), bool)
    in_train[of_side[0]] = True
    num_in_two = 0
    if train.labels is not None:
        labels = np.concatenate([side.labels for side in sides if side.labels is not None])
        pairs = np.unique(numbers * (labels.max(initial=0) + 1) + labels)
        num_classes = np.bincount(pairs // (labels.max(initial=0) + 1), minlength=len(numbers))
        num_in_two = int((num_classes[numbers] > 1).sum())
    return Copies(
        within=sum(len(side) - len(np.unique(side)) for side in of_side),
        test_in_train=int(in_train[of_side[-1]].sum()),
        validation_in_train=0 if validation is None else int(in_train[of_side[1]].sum()),
        in_two_classes=num_in_two,
    )


def _numbered(firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number [N] for each of those that share one of `firsts` [N], from 0 in order of these."""
    numbers: NDArray[np.int64] = np.cumsum(firsts == np.arange(len(firsts))) - 1
    return numbers[firsts]


def _first_equal(found: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Which [N] is the first that equals each of the digests [N, 2]."""
    order = np.argsort(found[:, 0])
    is_new, is_other = (_differs(half[order]) for half in found.T)
    if (is_other & ~is_new).any():  # halves alike of digests that are not
        order = np.lexsort(found.T)
        is_new, is_other = (_differs(half[order]) for half in found.T)
        is_new |= is_other
    firsts = np.empty(len(found), np.int64)
    firsts[order] = np.minimum.reduceat(order, np.flatnonzero(is_new))[np.cumsum(is_new) - 1]
    return firsts


def _differs(values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each [N] is another than the one before it."""
    differs = np.ones(len(values), bool)
    differs[1:] = values[1:] != values[:-1]
    return differs
