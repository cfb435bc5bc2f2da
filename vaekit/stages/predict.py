"""Labels for a user's own files."""

import csv
import sys
from pathlib import Path

import torch

from vaekit.images.decode import prepare_files
from vaekit.images.pixels import as_floats
from vaekit.runs.run import Run
from vaekit.svm.table import predict

BATCH_SIZE = 500


@torch.no_grad()
def predict_files(run: Run, paths: list[Path], with_latents: bool) -> None:
    """Write CSV to standard output: file, label, class name, a score for each class.

    Files are prepared as the run's own images were. Scores are votes plus squashed decisions, no
    probabilities. `with_latents` adds the mean and the log-variance of each latent dimension.
    """
    weights, table = run.weights, run.svm.table
    pixels = torch.from_numpy(prepare_files(paths, weights.vae.image_shape, run.config.data))
    posteriors = [weights.vae.encode(as_floats(batch)) for batch in torch.split(pixels, BATCH_SIZE)]
    latents = torch.cat([torch.cat(posterior, dim=1) for posterior in posteriors]).numpy()
    prediction = predict(table, latents)

    names = [weights.class_names[label] for label in table.classes]
    dimensions = range(weights.vae.latent_dim) if with_latents else ()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(
        ["file", "label", "class_name"]
        + [f"score_{name}" for name in names]
        + [f"mean_{i}" for i in dimensions]
        + [f"log_variance_{i}" for i in dimensions]
    )
    for path, label, scores, row in zip(
        paths, prediction.labels, prediction.scores, latents, strict=True
    ):
        values = [*scores, *row] if with_latents else scores
        writer.writerow(
            [path, label, weights.class_names[label], *(f"{value:.6g}" for value in values)]
        )
