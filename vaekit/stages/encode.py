"""The latents of a person's own files, or of a run's images, as a table."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.runs.index import IndexRow
from vaekit.runs.inference import encode as encode_pixels
from vaekit.runs.latents import latent_columns
from vaekit.runs.run import Run
from vaekit.stages.tables import csv_texts, require_table, write_csv, write_parquet
from vaekit.storage.arrays import blocks_of_rows, write_rows


def encode(
    run: Run,
    given: Sequence[Path],
    output: Path | None,
    *,
    log_variances: bool = False,
    skip_unreadable: bool = False,
) -> None:
    """Write the latents of image files, and of those in folders; the stage behind `vaekit encode`.

    A row an image: its file, its label and class name where the set has classes (empty where no
    folder says so), and the mean of each latent dimension as z1, z2 and so on. Without images
    those of the run are meant, with split and row. A .npy file holds the numbers alone, float32
    [N, L], and beside it lies a .index.csv with the other columns.
    """
    if output is not None:
        require_table(output)
    table = _of_files(run, given, skip_unreadable) if given else _of_the_run(run)
    names = latent_columns(run.weights.vae.latent_dim, log_variances=log_variances)

    def columns() -> Iterator[dict[str, Any]]:
        for block in table.blocks():
            values = block.latents[:, : len(names)].T
            yield block.columns | dict(zip(names, values, strict=True))

    if output is None:
        sys.stdout.writelines(csv_texts(columns()))
        return
    if output.suffix.lower() == ".npy":
        shape = (table.num_images, len(names))
        values = (block.latents[:, : len(names)] for block in table.blocks())
        write_rows(output, shape, np.float32, values)
        write_csv(output.with_suffix(".index.csv"), (block.columns for block in table.blocks()))
    elif output.suffix.lower() == ".parquet":
        write_parquet(output, columns())
    else:
        write_csv(output, columns())
    print(f"{table.num_images:,} images, {len(names)} columns {names[0]} ... {names[-1]}: {output}")


class _Block(NamedTuple):
    """Some rows of the table."""

    columns: dict[str, Any]  # of the index
    latents: NDArray[np.float32]  # [n, 2 * latent_dim]


class _Table(NamedTuple):
    """What is written, in blocks of rows."""

    num_images: int
    blocks: Callable[[], Iterable[_Block]]


def _of_files(run: Run, given: Sequence[Path], skip_unreadable: bool) -> _Table:
    inputs = run.inputs(given, skip_unreadable)
    assert inputs.files is not None
    class_names = run.weights.class_names
    index: dict[str, Any] = {"row": range(len(inputs.files)), "file": inputs.files}
    if class_names:
        index["label"] = inputs.labels
        index["class_name"] = [
            None if label is None else class_names[label] for label in inputs.labels
        ]
    latents = np.concatenate(encode_pixels(run.weights, inputs.pixels), axis=1)
    return _Table(len(latents), lambda: [_Block(index, latents)])


def _of_the_run(run: Run) -> _Table:
    latents = run.latents
    if not latents.rows:
        raise UserError(
            f"{run.folder.latents}: of an earlier version, which kept no index; make them again "
            f"with `vaekit latents {run.folder.quoted}`"
        )

    def blocks() -> Iterator[_Block]:
        first = 0
        for values in (latents.train, latents.test):
            for block in blocks_of_rows(*values.shape):
                rows = latents.rows[first + block.start : first + block.stop]
                columns = zip(IndexRow._fields, zip(*rows, strict=True), strict=True)
                yield _Block(dict(columns), values[block])
            first += len(values)

    return _Table(len(latents.rows), blocks)
