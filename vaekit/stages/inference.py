"""A trained run at work: images out of nothing, labels for a user's own files."""

import csv
import sys
from pathlib import Path

import torch

from vaekit.errors import UserError
from vaekit.images.decode import prepare_files
from vaekit.images.pictures import image_grid, write_image
from vaekit.images.pixels import as_floats, as_pixels
from vaekit.runs.folder import RunFolder
from vaekit.stages.svm import predict, read_svm, require_svm_of
from vaekit.training.noise import Stream, normal_noise

BATCH_SIZE = 500
MAX_GENERATED = 10_000


@torch.no_grad()
def generate(run_path: Path, count: int, output: Path, seed: int) -> None:
    """Decode `count` latents from the prior into one picture, a grid of images."""
    if not 1 <= count <= MAX_GENERATED:
        raise UserError(f"--count {count}: expected from 1 to {MAX_GENERATED}, for one picture")
    if seed < 0:
        raise UserError(f"--seed {seed}: expected at least 0")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output {output}: expected a name that ends in .png")
    vae = RunFolder(run_path).read_weights().vae
    shape = (count, vae.config.latent_dim)
    latents = normal_noise(shape, seed, Stream.SAMPLES, 0, torch.device("cpu"))
    images = torch.cat([vae.decode(batch) for batch in torch.split(latents, BATCH_SIZE)])
    write_image(output, image_grid(as_pixels(images)))
    print(f"{count} images: {output}")


@torch.no_grad()
def predict_files(run_path: Path, paths: list[Path], with_latents: bool) -> None:
    """Write CSV to standard output: file, label, class name, a score for each class.

    Files are prepared as those of a folder are. Scores are votes plus squashed decisions, no
    probabilities. `with_latents` adds the mean and the log-variance of each latent dimension.
    """
    run = RunFolder(run_path)
    weights, svm = run.read_weights(), read_svm(run)
    require_svm_of(weights, svm, run)
    table = svm.table
    pixels = torch.from_numpy(prepare_files(paths, weights.vae.image_shape))
    posteriors = [weights.vae.encode(as_floats(batch)) for batch in torch.split(pixels, BATCH_SIZE)]
    latents = torch.cat([torch.cat(posterior, dim=1) for posterior in posteriors]).numpy()
    prediction = predict(table, latents)

    names = [weights.class_names[label] for label in table.classes]
    dimensions = range(weights.vae.config.latent_dim) if with_latents else ()
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
