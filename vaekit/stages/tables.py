"""Tables that leave vaekit: CSV for people, parquet and .npy for programs."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.storage.files import atomic_path

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


def csv_text(columns: Columns, *, header: bool = True) -> str:
    """UTF-8 CSV with a header; floats have as many digits as tell them apart, None is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows(zip(*(_shown(column) for column in columns.values()), strict=True))
    return text.getvalue()


def csv_texts(blocks: Iterable[Columns]) -> Iterator[str]:
    """A table in blocks of rows, of which the first begins with a header."""
    for number, columns in enumerate(blocks):
        yield csv_text(columns, header=number == 0)


def write_csv(path: Path, blocks: Iterable[Columns]) -> None:
    """Write a table that comes in blocks of rows."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for text in csv_texts(blocks):
            file.write(text.encode(errors="backslashreplace"))


def write_parquet(path: Path, blocks: Iterable[Columns]) -> None:
    """Write a table that comes in blocks of rows, and whose first has all its types."""
    import pyarrow
    from pyarrow import parquet

    tables = (
        pyarrow.table({name: _as_text(column) for name, column in columns.items()})
        for columns in blocks
    )
    first = next(tables)
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        parquet.ParquetWriter(file, first.schema) as writer,
    ):
        writer.write_table(first)
        for table in tables:
            writer.write_table(table.cast(first.schema))


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
