"""Images of equal pixels: which they are, and on which sides of a split."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.images.mapped import MappedImages, PixelArray, blocks

_HALVES = 2  # of a digest of 16 bytes


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
    return np.frombuffer(b"".join(found), np.uint64).reshape(-1, _HALVES)


def groups_of(found: NDArray[np.uint64], together: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number [N] for each digest of an image; the same for equal ones and those of one number.

    `together` [N] are numbers of what belongs together anyway, as the pages of a file.
    """
    equal = _numbered(found)
    if len(np.unique(together)) == len(together):
        return equal
    parents = list(range(len(found)))

    def root(item: int) -> int:
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    seen: dict[object, int] = {}
    for index, numbers in enumerate(zip(equal.tolist(), together.tolist(), strict=True)):
        for key in enumerate(numbers):
            parents[root(index)] = root(seen.setdefault(key, index))
    roots = np.array([root(index) for index in range(len(found))], np.int64)
    groups: NDArray[np.int64] = np.unique(roots, return_inverse=True)[1]
    return groups


def count_copies(train: Side, validation: Side | None, test: Side) -> Copies:
    """Of the images of each side and their labels."""
    sides = [train, *([] if validation is None else [validation]), test]
    numbers = _numbered(np.concatenate([side.digests for side in sides]))
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


def _numbered(found: NDArray[np.uint64]) -> NDArray[np.int64]:
    """A number [N] for each digest [N, 2], from 0 in the order in which they first appear."""
    if not len(found):
        return np.zeros(0, np.int64)
    order = np.lexsort(found.T)  # stable: the first of equal ones comes first
    is_new = np.zeros(len(found), bool)
    is_new[0] = True
    for half in found.T:
        column = half[order]
        is_new[1:] |= column[1:] != column[:-1]
    firsts = order[is_new]
    rank: NDArray[Any] = np.empty(len(firsts), np.int64)
    rank[np.argsort(firsts)] = np.arange(len(firsts))
    numbers = np.empty(len(found), np.int64)
    numbers[order] = rank[np.cumsum(is_new) - 1]
    return numbers
