"""The index of latents: of which image each row is, on disk as parquet and read as it is needed."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from vaekit.storage.damage import Damaged, as_written
from vaekit.storage.files import atomic_path

if TYPE_CHECKING:
    from vaekit.images.image_set import Images, ImageSet

INDEX = "index.parquet"
CSV_INDEX = "index.csv"  # of earlier versions; none beside the latents of vaekit 0.1
ROWS_OF_GROUP = 2**16  # that are read at a time


class IndexRow(NamedTuple):
    """Of which image a row of the latents is."""

    split: str
    row: int  # in the arrays of this split, from 0
    file: str | None  # relative to the root of the images; None where they are not a file each
    label: int | None
    class_name: str | None


class Index(Sequence[IndexRow]):
    """A row an image, those of train and then of test, of which a group at a time is in memory."""

    def __init__(self, source: Any) -> None:
        """`source` is a path or a buffer of parquet. Raises `Damaged` for another one."""
        self._source = source
        with self._open() as file:
            if not file.schema_arrow.equals(_schema()):
                raise Damaged(f"not as vaekit writes it (the columns {file.schema_arrow.names})")
            groups = range(file.num_row_groups)
            lengths = [file.metadata.row_group(group).num_rows for group in groups]
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, rows: int) -> IndexRow: ...
    @overload
    def __getitem__(self, rows: slice) -> tuple[IndexRow, ...]: ...
    def __getitem__(self, rows: int | slice) -> IndexRow | tuple[IndexRow, ...]:
        if isinstance(rows, int):
            number = range(len(self))[rows]
            return self[number : number + 1][0]
        numbers = range(len(self))[rows]
        if not numbers:
            return ()
        low, high = min(numbers), max(numbers)
        first, last = np.searchsorted(self._ends, [low, high], side="right").tolist()
        with self._open() as file:
            columns = file.read_row_groups([*range(first, last + 1)]).to_pydict()
        start = int(self._ends[first - 1]) if first else 0
        every = [*zip(*columns.values(), strict=True)]
        return tuple(IndexRow(*every[number - start]) for number in numbers)

    def __iter__(self) -> Iterator[IndexRow]:
        start = 0
        for end in self._ends.tolist():
            yield from self[start:end]
            start = end

    def is_of(self, num_train: int, num_test: int) -> bool:
        """Whether its rows are those of so many images, in their order."""
        if len(self) != num_train + num_test:
            return False
        first = 0
        with self._open() as file:
            for batch in file.iter_batches(ROWS_OF_GROUP):
                batch.validate(full=True)  # what is read later can't fail then
                numbers = np.arange(first, first + batch.num_rows)
                is_test = numbers >= num_train
                splits = np.where(is_test, "test", "train")
                rows = numbers - num_train * is_test
                if not (_equal(batch.column(0), splits) and _equal(batch.column(1), rows)):
                    return False
                first += batch.num_rows
        return True

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import pyarrow
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self._source) as file:
                yield file
        except (pyarrow.ArrowException, OSError) as error:
            raise Damaged(f"no parquet file ({error!s:.200})") from error


def index_row(images: "Images", number: int) -> IndexRow:
    """Of which image of a run row `number` is: those of train are counted, and then of test."""
    num_train = len(images.train.pixels)
    split, row = ("train", number) if number < num_train else ("test", number - num_train)
    image_set = images.train if split == "train" else images.test
    file = None if image_set.files is None else image_set.files[row]
    label = None if image_set.labels is None else int(image_set.labels[row])
    return IndexRow(split, row, file, label, None if label is None else images.class_names[label])


def write_index(path: Path, images: "Images") -> None:
    """Write parquet, a row an image of a run; what is unknown is null."""
    import pyarrow
    from pyarrow import parquet

    schema = _schema()
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for split, image_set in (("train", images.train), ("test", images.test)):
            count = len(image_set.pixels)
            for start in range(0, count, ROWS_OF_GROUP):
                rows = slice(start, min(start + ROWS_OF_GROUP, count))
                columns = _columns(split, image_set, images.class_names, rows)
                writer.write_table(pyarrow.table(columns, schema=schema))


def _columns(
    split: str, image_set: "ImageSet", class_names: Sequence[str], rows: slice
) -> dict[str, Any]:
    """Those of some rows of a split; names of files need not be UTF-8, and are in parquet."""
    numbers = np.arange(rows.start, rows.stop)
    columns: dict[str, Any] = dict.fromkeys(IndexRow._fields, [None] * len(numbers))
    columns |= {"split": [split] * len(numbers), "row": numbers}
    if image_set.files is not None:
        files = image_set.files[rows]
        columns["file"] = [name.encode(errors="backslashreplace").decode() for name in files]
    if image_set.labels is not None:
        columns["label"] = image_set.labels[rows]
        columns["class_name"] = [class_names[label] for label in columns["label"].tolist()]
    return columns


def read_index(path: Path) -> Index:
    """What `write_index` wrote, or an earlier version. Raises `Damaged` where it is neither."""
    return _of_csv(path) if path.name == CSV_INDEX else Index(path)


def _of_csv(path: Path) -> Index:
    import pyarrow
    from pyarrow import parquet

    with as_written(), path.open(encoding="utf-8", newline="") as file:
        try:
            header, *lines = csv.reader(file)
        except csv.Error as error:
            raise ValueError(error) from error
        if tuple(header) != IndexRow._fields:
            raise ValueError(f"the columns {header!s:.100}")
        rows = [
            (split, int(row), name or None, *((int(label), class_name) if label else (None, None)))
            for split, row, name, label, class_name in lines
        ]
        columns = zip(*rows, strict=True) if rows else [[] for _ in IndexRow._fields]
        schema = _schema()
        table = pyarrow.table(dict(zip(IndexRow._fields, map(list, columns), strict=True)), schema)
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(table, buffer, row_group_size=ROWS_OF_GROUP)
    return Index(buffer.getvalue())


def _schema() -> Any:
    import pyarrow

    text, number = pyarrow.string(), pyarrow.int64()
    return pyarrow.schema(
        [
            ("split", text),
            ("row", number),
            ("file", text),
            ("label", number),
            ("class_name", text),
        ]
    )


def _equal(column: Any, expected: NDArray[Any]) -> bool:
    return bool((column.to_numpy(zero_copy_only=False) == expected).all())
