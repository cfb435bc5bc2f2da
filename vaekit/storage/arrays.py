"""Arrays on disk: plain .npy files."""

import io
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray

from vaekit.storage.damage import Damaged
from vaekit.storage.files import require_file, write_bytes


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as a .npy file."""
    content = io.BytesIO()  # to a file NumPy's own OSError has no errno
    np.save(content, array, allow_pickle=False)
    write_bytes(path, content.getvalue())


def read_npy(path: Path, dtype: DTypeLike, num_dimensions: int) -> NDArray[Any]:
    """An array of a .npy file, in memory. Raises `Damaged` where it is none of this kind."""
    require_file(path)
    try:
        mapped = open_memmap(path, mode="r")  # a forged shape takes no memory
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
    return np.array(mapped)
