"""What an image set is: arrays to train, to validate and to test on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.config import DataConfig
from vaekit.images.appearance import Appearance, measure
from vaekit.images.copies import Copies, Side, count_copies, digests
from vaekit.images.facts import Facts, FactsPlace
from vaekit.images.mapped import MappedImages, PixelArray, Which, blocks
from vaekit.images.reading import NOTHING_READ, Reading


class ImageSet(NamedTuple):
    """Images with their labels, and the names of the files that they are from."""

    pixels: PixelArray  # [N, C, H, W]; may be mapped from files, which no write reaches
    labels: NDArray[np.int64] | None  # [N], indices into the class names
    files: Sequence[str] | None = None  # [N], relative to the root; None: not a file each

    def take(self, which: Which) -> "ImageSet":
        """Some images, where they are if they are mapped."""
        pixels, files = self.pixels, self.files
        pixels = pixels.select(which) if isinstance(pixels, MappedImages) else pixels[which]
        if isinstance(files, tuple):
            files = tuple(np.array(files, object)[which])
        elif files is not None:
            files = files[which]  # type: ignore[index]
        labels = None if self.labels is None else self.labels[which]
        return ImageSet(pixels, labels, files)


@dataclass(frozen=True)
class Images:
    """What a run trains on, what it is tested on, and what it may choose its weights by."""

    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]  # () for an unlabelled set
    validation: ImageSet | None = None  # to choose by, where the set has such images
    reading: Reading = NOTHING_READ  # what of the files they are
    data: DataConfig | None = None  # with what the images settled
    facts_place: FactsPlace | None = None  # where those are kept; None: they are found out anew
    facts: Facts | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    @cached_property
    def appearance(self) -> Appearance:
        """What those to train on look like."""
        return measure(self.train.pixels)

    @property
    def _sets(self) -> tuple[ImageSet, ...]:
        return (self.train, self.test, *([] if self.validation is None else [self.validation]))

    def sha256(self) -> str:
        """The sha256 over pixels and labels of all sets: equal images, equal order."""
        if self.facts is not None:
            return self.facts.sha256
        digest = hashlib.sha256()
        for array in (array for each in self._sets for array in (each.pixels, each.labels)):
            if array is None:
                digest.update(b"unlabelled")
            else:
                digest.update(f"{array[:0].dtype.str} {array.shape}".encode())
                for block in blocks(array):
                    digest.update(np.ascontiguousarray(block).reshape(-1).data)
        return digest.hexdigest()

    def copies(self) -> Copies:
        """Which images equal one another."""
        if self.facts is not None:
            return self.facts.copies
        train, test, *others = (Side(digests(each.pixels), each.labels) for each in self._sets)
        return count_copies(train, others[0] if others else None, test)
