"""Rows of arrays that lie in several files, in any order, without holding them in memory."""

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096  # rows that are gathered at a time where all are gone through

Which = slice | NDArray[np.int64]


class PixelArray(Protocol):
    """Images uint8 [N, C, H, W]: an array, or `Mapped` ones."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def size(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any, /) -> Any: ...


class Mapped:
    """Rows of `parts`, arrays [n, ...] of like kinds such as memory maps, as one array [N, ...].

    `places` [N] count through all parts. What is taken out with an index, a slice or an array of
    indices is a copy in memory; `select` takes none.
    """

    def __init__(self, parts: Sequence[NDArray[Any]], places: NDArray[np.int64]) -> None:
        self.parts, self.places = tuple(parts), places
        # Names are as wide as the longest of their part.
        self._kinds = {part.dtype for part in parts}
        self._ends = np.cumsum([len(part) for part in parts])

    @property
    def dtype(self) -> np.dtype[Any]:
        return reduce(np.promote_types, self._kinds)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.places), *self.parts[0].shape[1:])

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, which: Any, /) -> NDArray[Any]:
        places = np.asarray(self.places[which])
        gathered = np.empty((places.size, *self.shape[1:]), self.dtype)
        self._gather(places.reshape(-1), gathered)
        return gathered.reshape(*places.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def select(self, which: Which) -> "Mapped":
        """Some of the rows, where they are."""
        return Mapped(self.parts, self.places[which])

    def column(self, name: str) -> NDArray[Any]:
        """A field of all rows [N, ...]."""
        kind = self.dtype[name]
        made = np.empty((len(self), *kind.shape), kind.base)
        for start in range(0, len(self), BLOCK):
            made[start : start + BLOCK] = self[start : start + BLOCK][name]
        return made

    def take_into(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy `rows` [n] into `out` [n, ...]."""
        self._gather(self.places[rows], out)

    def _gather(self, places: NDArray[np.int64], out: NDArray[Any]) -> None:
        part_of = np.searchsorted(self._ends, places, side="right")
        order = np.argsort(part_of, kind="stable")
        present, firsts = np.unique(part_of[order], return_index=True)
        for part, (first, last) in zip(
            present.tolist(), pairwise([*firsts.tolist(), len(order)]), strict=True
        ):
            rows, array = order[first:last], self.parts[part]
            out[rows] = array[places[rows] - (self._ends[part] - len(array))]


class MappedImages(Mapped):
    """Images in several files, with tables [n] that say of each what it is."""

    def __init__(
        self,
        parts: Sequence[NDArray[np.uint8]],
        tables: Sequence[NDArray[Any]],
        places: NDArray[np.int64],
    ) -> None:
        super().__init__(parts, places)
        self._tables = tables

    @property
    def table(self) -> Mapped:
        """A row of the tables for each image."""
        return Mapped(self._tables, self.places)

    def select(self, which: Which) -> "MappedImages":
        return MappedImages(self.parts, self._tables, self.places[which])


def blocks(array: PixelArray) -> Iterator[NDArray[Any]]:
    """All rows of an array in order, some thousands at a time."""
    for start in range(0, len(array), BLOCK):
        yield array[start : start + BLOCK]
