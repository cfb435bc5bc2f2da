"""Tables that leave vaekit: CSV for people, parquet and .npy for programs."""

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.storage.files import atomic_path, write_bytes

SUFFIXES = (".csv", ".parquet", ".npy")

Column = Sequence[Any] | NDArray[Any]
Columns = Mapping[str, Column]


def require_table(output: Path) -> None:
    """Raise `UserError` for the name of a table that can't be written."""
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"--output {output}: expected a name that ends in {', '.join(SUFFIXES)}")
    if output.is_dir():
        raise UserError(f"--output {output}: a folder, expected the name of a file")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise UserError(
            f"--output {output}: parquet needs pyarrow, which is not installed; "
            f"`pip install pyarrow`, or give a name that ends in .csv"
        )


def csv_text(columns: Columns) -> str:
    """UTF-8 CSV with a header; floats have as many digits as tell them apart, None is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(_shown(column) for column in columns.values()), strict=True))
    return text.getvalue()


def write_csv(path: Path, columns: Columns) -> None:
    write_bytes(path, csv_text(columns).encode(errors="backslashreplace"))


def write_parquet(path: Path, columns: Columns) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({name: _as_text(column) for name, column in columns.items()})
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary)


def _shown(column: Column) -> Column:
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return [f"{value:.9g}" for value in column.tolist()]
    return column


def _as_text(column: Column) -> Column:
    """Names of files as UTF-8 has them."""
    if isinstance(column, np.ndarray):
        return column
    return [
        value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for value in column
    ]
