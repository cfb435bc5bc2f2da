"""The latents in a run folder: arrays, an index of their rows, and metadata that bind them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.runs.index import CSV_INDEX, INDEX, Index, IndexRow, read_index
from vaekit.storage.arrays import read_npy
from vaekit.storage.damage import Damaged, as_written, strings, typed
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import read_sealed

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT_VERSION = 2

LATENT_FILES = ("train_latents.npy", "test_latents.npy")
LABEL_FILES = ("train_labels.npy", "test_labels.npy")  # none for an unlabelled set
INDEXES = {INDEX, CSV_INDEX}


class Latents(NamedTuple):
    """What the encoder says of the images: float32 [N, 2 * latent_dim], labels int64 [N]."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64] | None
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    model_sha256: str  # of the weights that made them
    sha256: str  # of themselves: what an SVM is bound to
    rows: Sequence[IndexRow]  # of train and then of test; empty where none was written

    @property
    def train_means(self) -> NDArray[np.float32]:
        """[N, latent_dim]"""
        return self.train[:, : self.train.shape[1] // 2]

    @property
    def test_means(self) -> NDArray[np.float32]:
        """[N, latent_dim]"""
        return self.test[:, : self.test.shape[1] // 2]

    def to_pandas(self, *, log_variances: bool = False) -> "DataFrame":
        """A row an image, of train and then of test: split, row, file, label, class_name, z1 ...

        Columns of files and of labels are there where the images have them, and those of the
        log-variances where they are wanted. Raises `UserError` where pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ModuleNotFoundError as error:
            raise UserError("to_pandas: pandas is not installed; `pip install pandas`") from error
        rows = self.rows or [*self._rows_without_files()]
        index = DataFrame(rows, columns=IndexRow._fields).dropna(axis=1, how="all")
        names = latent_columns(self.train.shape[1] // 2, log_variances=log_variances)
        values = np.concatenate([self.train, self.test])[:, : len(names)]
        return index.join(DataFrame(values, columns=names))

    def _rows_without_files(self) -> Iterator[IndexRow]:
        for split, labels, count in (
            ("train", self.train_labels, len(self.train)),
            ("test", self.test_labels, len(self.test)),
        ):
            for row in range(count):
                label = None if labels is None else int(labels[row])
                name = None if label is None else self.class_names[label]
                yield IndexRow(split, row, None, label, name)


def latent_columns(latent_dim: int, *, log_variances: bool) -> list[str]:
    """Names of the latent dimensions, as the report and the explorer have them."""
    names = [f"z{number}" for number in range(1, latent_dim + 1)]
    return names + [f"{name}_log_variance" for name in names] if log_variances else names


def read_metadata(path: Path) -> dict[str, Any]:
    """What latents.json says of the files beside it. Raises `Damaged` where it is another file."""
    metadata = read_sealed(path, version=FORMAT_VERSION)
    with as_written():
        typed(metadata["model_sha256"], str)
        strings(metadata["class_names"])
        files = typed(metadata["files"], dict)
        if {*files} - INDEXES not in ({*LATENT_FILES}, {*LATENT_FILES, *LABEL_FILES}):
            raise ValueError(f"the files {sorted(files)!s:.100}")
    return metadata


def read_part(path: Path, sha256: str) -> Any:
    """One of the files that a product names. Raises `Damaged` where it is another one."""
    if not path.is_file() or file_sha256(path) != sha256:
        raise Damaged("missing or not the file that was written")
    if path.name in INDEXES:
        return read_index(path)
    if path.name in LABEL_FILES:
        return read_npy(path, np.int64, 1)
    return read_npy(path, np.float32, 2)


def summary_of_part(part: Any) -> str:
    """What the doctor says of one that is whole."""
    return f"{len(part)} rows" if isinstance(part, Index) else f"{part.dtype} {list(part.shape)}"


def assemble(metadata: dict[str, Any], parts: Mapping[str, Any]) -> Latents:
    """The latents of one run. Raises `Damaged` where the parts don't fit one another."""
    latents = Latents(
        train=parts["train_latents.npy"],
        train_labels=parts.get("train_labels.npy"),
        test=parts["test_latents.npy"],
        test_labels=parts.get("test_labels.npy"),
        class_names=tuple(metadata["class_names"]),
        model_sha256=metadata["model_sha256"],
        sha256=latents_sha256(metadata),
        rows=parts.get(INDEX, parts.get(CSV_INDEX, ())),
    )
    if fault := _fault(latents):
        raise Damaged(fault)
    return latents


def latents_sha256(metadata: dict[str, Any]) -> str:
    """The sha256 over the hashes of all arrays: what an SVM is bound to, whatever files are called.

    So an SVM outlives latents that are made again only to get an index.
    """
    files = metadata["files"]
    text = "".join(f"{name} {files[name]}\n" for name in sorted(files) if name not in INDEXES)
    return hashlib.sha256(text.encode()).hexdigest()


def _fault(latents: Latents) -> str | None:
    """What keeps arrays of the right types from being the latents of one run, if anything does."""
    num_columns = latents.train.shape[1]
    if num_columns == 0 or num_columns % 2 or latents.test.shape[1] != num_columns:
        return f"latents of {num_columns} and {latents.test.shape[1]} columns"
    for name, rows, labels in (
        ("train", latents.train, latents.train_labels),
        ("test", latents.test, latents.test_labels),
    ):
        if len(rows) == 0:
            return f"no {name} latents"
        if labels is None:
            continue
        if len(labels) != len(rows):
            return f"{len(labels)} {name} labels of {len(rows)} latents"
        if labels.min() < 0 or labels.max() >= len(latents.class_names):
            return f"{name} labels that are no index into the {len(latents.class_names)} classes"
    index = latents.rows
    if isinstance(index, Index) and not index.is_of(len(latents.train), len(latents.test)):
        return "the index is not of the rows of the latents"
    return None
