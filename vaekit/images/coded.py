"""One of a few values for each of many things: why it can't be read, what it was used as."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NONE = -1  # the code of what has no value


class Coded(NamedTuple):
    """Values that many of N things share."""

    codes: NDArray[np.int32]  # [N], the place of each one's value, or `NONE`
    values: Sequence[Any]

    def items(self) -> Iterator[tuple[int, Any]]:
        """The index and the value of each thing that has one that is not empty."""
        is_told = np.array([*map(bool, self.values), False])  # NONE takes the last
        for index in np.flatnonzero(is_told[self.codes]).tolist():
            yield index, self.values[self.codes[index]]


def coded(values: Iterable[Any]) -> Coded:
    """Hashable values [N], or None."""
    known: dict[Any, int] = {}
    codes = [NONE if each is None else known.setdefault(each, len(known)) for each in values]
    return Coded(np.array(codes, np.int32), list(known))
