"""Labels for a person's own files."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.errors import UserError
from vaekit.runs.run import Run
from vaekit.stages.inputs import encode_pixels, read_inputs
from vaekit.stages.tables import csv_text, latent_columns
from vaekit.svm.table import predict


def predict_files(
    run: Run, given: Sequence[Path], with_latents: bool, skip_unreadable: bool = False
) -> None:
    """Write CSV to standard output: file, label, class name, a score for each class.

    Files, and those in folders, are prepared as the run's own images were. Scores are votes plus
    squashed decisions, no probabilities. `with_latents` adds the mean and the log-variance of each
    latent dimension.
    """
    weights = run.weights
    if not weights.class_names and not run.has_svm:
        raise UserError(
            f"{run.folder.path}: trained on images without labels, so there is nothing to predict; "
            f"`vaekit encode {run.folder.quoted}` gives the latents of files"
        )
    table = run.svm.table
    inputs = read_inputs(run, given, skip_unreadable=skip_unreadable)
    latents = np.concatenate(encode_pixels(weights, inputs.pixels), axis=1)
    prediction = predict(table, latents)
    columns: dict[str, Any] = {
        "file": inputs.files,
        "label": prediction.labels,
        "class_name": [weights.class_names[label] for label in prediction.labels],
    }
    for index, label in enumerate(table.classes):
        columns[f"score_{weights.class_names[label]}"] = prediction.scores[:, index]
    if with_latents:
        names = latent_columns(weights.vae.latent_dim, log_variances=True)
        columns |= {name: latents[:, index] for index, name in enumerate(names)}
    sys.stdout.write(csv_text(columns))
