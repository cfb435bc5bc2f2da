"""Images of equal pixels: which they are, and on which sides of a split."""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Copies(NamedTuple):
    """How many images equal another one, and where that one is."""

    within: int  # one of the same side, beyond the first
    test_in_train: int
    validation_in_train: int
    in_two_classes: int


def groups_of(pixels: NDArray[np.uint8], together: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number [N] for each image of `pixels`; the same for equal ones and those of one number.

    `together` [N] are numbers of what belongs together anyway, as the pages of a file.
    """
    parents = list(range(len(pixels)))

    def root(item: int) -> int:
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    seen: dict[object, int] = {}
    for index, (digest, number) in enumerate(zip(digests(pixels), together.tolist(), strict=True)):
        for key in (digest, number):
            parents[root(index)] = root(seen.setdefault(key, index))
    roots = np.array([root(index) for index in range(len(pixels))], np.int64)
    groups: NDArray[np.int64] = np.unique(roots, return_inverse=True)[1]
    return groups


def digests(pixels: NDArray[np.uint8]) -> list[bytes]:
    """A hash of each image [N, ...]: equal for equal pixels."""
    return [
        hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        for image in pixels
    ]


def count_copies(
    train: tuple[NDArray[np.uint8], NDArray[np.int64] | None],
    validation: tuple[NDArray[np.uint8], NDArray[np.int64] | None] | None,
    test: tuple[NDArray[np.uint8], NDArray[np.int64] | None],
) -> Copies:
    """Of the images [N, C, H, W] of each side and their labels."""
    sides = [digests(side[0]) if side is not None else [] for side in (train, validation, test)]
    trained = set(sides[0])
    classes: dict[bytes, set[int]] = {}
    for side, found in zip((train, validation, test), sides, strict=True):
        labels = None if side is None else side[1]
        for digest, label in zip(found, [] if labels is None else labels.tolist(), strict=False):
            classes.setdefault(digest, set()).add(label)
    return Copies(
        within=sum(len(side) - len(set(side)) for side in sides),
        test_in_train=sum(digest in trained for digest in sides[2]),
        validation_in_train=sum(digest in trained for digest in sides[1]),
        in_two_classes=sum(len(classes.get(digest, ())) > 1 for side in sides for digest in side),
    )
