"""Arrays on disk: plain .npy files, written and read in blocks of rows."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap, write_array_header_1_0
from numpy.typing import DTypeLike, NDArray

from vaekit.storage.damage import Damaged
from vaekit.storage.files import atomic_path, require_file

MAX_VALUES = 2**20  # of a block: 8 MB as float64


def blocks_of_rows(count: int, values_a_row: int) -> Iterator[slice]:
    """All of `count` rows, so many at a time that a block is a moderate array."""
    size = max(1, MAX_VALUES // max(1, values_a_row))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as a .npy file."""
    write_rows(path, array.shape, array.dtype, [array])


def write_rows(
    path: Path, shape: tuple[int, ...], dtype: DTypeLike, blocks: Iterable[NDArray[Any]]
) -> None:
    """Write an array as a .npy file, block of rows by block of rows."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        write_array_header_1_0(file, header)
        for block in blocks:  # by Python: NumPy's own OSError has no errno
            file.write(np.ascontiguousarray(block, dtype).data)


def read_npy(path: Path, dtype: DTypeLike, num_dimensions: int) -> NDArray[Any]:
    """An array of a .npy file, mapped: what is used of it is read then, what is changed stays here.

    Raises `Damaged` where it is none of this kind.
    """
    require_file(path)
    try:
        mapped = open_memmap(path, mode="c")  # a forged shape takes no memory
    except (
        ValueError,
        TypeError,
        OverflowError,
        SyntaxError,
        TokenError,
        RecursionError,
    ) as error:  # what NumPy raises for a header that is none
        raise Damaged(f"not a whole .npy file ({error!s:.200})") from error
    if (mapped.dtype, mapped.ndim) != (dtype, num_dimensions):
        raise Damaged(f"expected a .npy file of {np.dtype(dtype)} in {num_dimensions} dimensions")
    return mapped.view(np.ndarray)
