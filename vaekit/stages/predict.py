"""Labels for a person's own files."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.runs.inference import encode, predict_latents
from vaekit.runs.latents import latent_columns
from vaekit.runs.run import Run
from vaekit.stages.tables import csv_text


def predict_files(
    run: Run, given: Sequence[Path], with_latents: bool, skip_unreadable: bool = False
) -> None:
    """Write CSV to standard output: file, label, class name, a score for each class.

    Files, and those in folders, are prepared as the run's own images were. Scores are votes plus
    squashed decisions, no probabilities. `with_latents` adds the mean and the log-variance of each
    latent dimension.
    """
    run.require_classes()
    svm = run.svm
    inputs = run.inputs(given, skip_unreadable)
    encoding = encode(run.weights, inputs.pixels)
    prediction = predict_latents(svm, encoding)
    columns: dict[str, Any] = {
        "file": inputs.files,
        "label": prediction.labels,
        "class_name": prediction.names,
    }
    for name, scores in zip(prediction.classes, prediction.scores.T, strict=True):
        columns[f"score_{name}"] = scores
    if with_latents:
        names = latent_columns(run.weights.vae.latent_dim, log_variances=True)
        columns |= dict(zip(names, np.concatenate(encoding, axis=1).T, strict=True))
    sys.stdout.write(csv_text(columns))
