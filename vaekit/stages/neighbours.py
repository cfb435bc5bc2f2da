"""Which images of a run are like a person's own files: a table and a picture."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.errors import UserError, say
from vaekit.images.pictures import neighbour_grid, write_image
from vaekit.runs.index import index_row
from vaekit.runs.run import Run
from vaekit.runs.scores import find_alike
from vaekit.stages.tables import csv_text

MAX_DRAWN = 50  # files, each a row of the picture


def find_neighbours(
    run: Run, given: Sequence[Path], k: int, output: Path, skip_unreadable: bool = False
) -> None:
    """Write CSV to standard output, a row a neighbour, and a picture, a row a file.

    The picture has each file first, as the model sees it, and then its neighbours, the nearest
    first.
    """
    if output.suffix.lower() != ".png":
        raise UserError(f"--output {output}: expected a name that ends in .png")
    latents, images = run.latents, run.images  # before files are read
    inputs = run.inputs(given, skip_unreadable)
    found = find_alike(run.weights, latents, inputs.pixels, k)
    neighbours = [index_row(images, row) for row in found.indices.ravel().tolist()]
    columns: dict[str, Any] = {
        "file": [file for file in inputs.files or () for _ in range(k)],
        "rank": np.tile(np.arange(1, k + 1), len(inputs.pixels)),
        "distance": found.distances.ravel(),
        "split": [each.split for each in neighbours],
        "row": [each.row for each in neighbours],
        "neighbour": [each.file for each in neighbours],
    }
    if images.class_names:
        columns["label"] = [each.label for each in neighbours]
        columns["class_name"] = [each.class_name for each in neighbours]
    sys.stdout.write(csv_text(columns))
    num_drawn = min(len(inputs.pixels), MAX_DRAWN)
    of_split = {"train": images.train.pixels, "test": images.test.pixels}
    drawn = np.stack([of_split[each.split][each.row] for each in neighbours[: num_drawn * k]])
    drawn = drawn.reshape(num_drawn, k, *drawn.shape[1:])
    write_image(output, neighbour_grid(inputs.pixels[:num_drawn], drawn))
    left_out = len(inputs.pixels) - num_drawn
    say(f"picture: {output}{f', without the last {left_out} files' if left_out else ''}")
