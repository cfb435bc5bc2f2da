"""Many names of files in little memory."""

from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 65_536  # names that are objects at a time


class Names:
    """Names in the order in which they came: each takes its length and eight bytes.

    They are held in an encoding that sorts as they do, also those that are not UTF-8.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._text, self._ends = bytearray(), array("q", [0])
        for name in names:
            self.append(name)

    def append(self, name: str) -> None:
        self._text += encoded(name)
        self._ends.append(len(self._text))

    def extend(self, names: NDArray[np.bytes_]) -> None:
        """With names that `encoded` made."""
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE].tolist()
            ends = len(self._text) + np.cumsum(list(map(len, some)), dtype=np.int64)
            self._text += b"".join(some)
            self._ends.frombytes(ends.tobytes())

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> str:
        name = self._text[self._ends[place] : self._ends[place + 1]]
        return name.decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def columns(self) -> "tuple[bytearray, array[int]]":
        """All names one after the other, and where each ends, from 0 on."""
        return self._text, self._ends


def encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
