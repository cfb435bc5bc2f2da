"""The latents of a person's own files, or of a run's images, as a table."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.runs.inference import encode as encode_pixels
from vaekit.runs.latents import latent_columns
from vaekit.runs.run import Run
from vaekit.stages.tables import (
    csv_text,
    require_table,
    write_csv,
    write_parquet,
)
from vaekit.storage.arrays import write_array


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
    index, latents = _of_files(run, given, skip_unreadable) if given else _of_the_run(run)
    num_columns = latents.shape[1] if log_variances else latents.shape[1] // 2
    names = latent_columns(latents.shape[1] // 2, log_variances=log_variances)
    latents = latents[:, :num_columns]
    columns = index | {name: latents[:, i] for i, name in enumerate(names)}
    if output is None:
        sys.stdout.write(csv_text(columns))
        return
    if output.suffix.lower() == ".npy":
        write_array(output, np.ascontiguousarray(latents))
        write_csv(output.with_suffix(".index.csv"), index)
    elif output.suffix.lower() == ".parquet":
        write_parquet(output, columns)
    else:
        write_csv(output, columns)
    print(
        f"{len(latents):,} images, {latents.shape[1]} columns {names[0]} ... {names[-1]}: {output}"
    )


def _of_files(
    run: Run, given: Sequence[Path], skip_unreadable: bool
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    inputs = run.inputs(given, skip_unreadable)
    assert inputs.files is not None
    class_names = run.weights.class_names
    index: dict[str, Any] = {"row": range(len(inputs.files)), "file": inputs.files}
    if class_names:
        index["label"] = inputs.labels
        index["class_name"] = [
            None if label is None else class_names[label] for label in inputs.labels
        ]
    return index, np.concatenate(encode_pixels(run.weights, inputs.pixels), axis=1)


def _of_the_run(run: Run) -> tuple[dict[str, Any], NDArray[np.float32]]:
    latents = run.latents
    if not latents.rows:
        raise UserError(
            f"{run.folder.latents}: of an earlier version, which kept no index; make them again "
            f"with `vaekit latents {run.folder.quoted}`"
        )
    columns = zip(latents.rows[0]._fields, zip(*latents.rows, strict=True), strict=True)
    return dict(columns), np.concatenate([latents.train, latents.test])
