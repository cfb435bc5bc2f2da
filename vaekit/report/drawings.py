"""The pictures of the report, each drawn into figures/ and put on the page."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vaekit.errors import UserError
from vaekit.evaluation.quality import trust_in
from vaekit.images import pictures
from vaekit.images.formats import UNREADABLE, open_image
from vaekit.images.mapped import PixelArray
from vaekit.images.pixels import as_floats, as_pixels
from vaekit.models.gaussian import kl_per_dimension
from vaekit.report import figures, standouts
from vaekit.report.circumstances import epochs_done
from vaekit.report.embedding import Picture, png_uri
from vaekit.report.map import latent_map, perplexity_for, some_indices, standardised
from vaekit.report.tables import class_names
from vaekit.report.thumbnails import thumbnails
from vaekit.runs.folder import RunFolder
from vaekit.runs.reference import reference_for
from vaekit.runs.run import Run

NUM_ORIGINALS = 64
NUM_RECONSTRUCTIONS = 32
MAX_SAMPLES = 12  # pictures of generated images, spread over the epochs
NUM_MEASURED = 1000  # images over which the information of a latent dimension is averaged
MAX_TRAVERSED = 16  # latent dimensions
TRAVERSAL_STEPS = np.linspace(-2.5, 2.5, 11)


class Sample(NamedTuple):
    """The generated images of one epoch."""

    epoch: int
    picture: Picture


class Traversal(NamedTuple):
    """A picture of `num_shown` latent dimensions, the most informative first."""

    picture: Picture
    num_shown: int
    nats: list[tuple[str, str]]  # (dimension, mean KL) of each


class Map(NamedTuple):
    """A 2-D map of test latents."""

    picture: Picture
    num_points: int
    perplexity: float
    trust: float | None  # how far its neighbours are neighbours among the latents
    thumbnails: dict[str, Any]


def draw_originals(run: Run) -> Picture:
    pixels = _some(run.images.train.pixels, NUM_ORIGINALS)
    picture = pictures.image_grid(pixels)
    return _draw(run.folder, "originals", picture, f"{len(pixels)} images of the training set")


def draw_reconstructions(run: Run) -> Picture:
    vae = run.weights.vae
    originals = _some(run.images.test.pixels, NUM_RECONSTRUCTIONS)
    means = vae.encode(as_floats(torch.from_numpy(originals))).mean
    picture = pictures.reconstruction_grid(originals, as_pixels(vae.decode(means)))
    alt = f"{len(originals)} test images, each row above the row of their reconstructions"
    return _draw(run.folder, "reconstructions", picture, alt)


def read_samples(run: Run) -> list[Sample]:
    """The pictures that training left, at most `MAX_SAMPLES`, spread over the epochs."""
    epochs = [row["epoch"] for row in run.metrics if run.folder.samples(row["epoch"]).exists()]
    if len(epochs) > MAX_SAMPLES:
        chosen = np.linspace(0, len(epochs) - 1, MAX_SAMPLES).round().astype(int)
        epochs = [epochs[index] for index in chosen]
    samples = []
    for epoch in epochs:
        when = f"after epoch {epoch}" if epoch else "before training"
        picture = _embed(run.folder.samples(epoch), f"Generated images {when}")
        samples.append(Sample(epoch, picture))
    return samples


def draw_losses(run: Run) -> list[Picture]:
    """The whole loss, its reconstruction and its KL; none before the first epoch is done."""
    if not epochs_done(run):
        return []
    folder, rows, reference = run.folder, run.metrics, reference_for(run.config)
    total = figures.loss_curve(rows, "loss", reference and reference.test_loss)
    reconstruction = figures.loss_curve(rows, "reconstruction")
    kl = figures.loss_curve(rows, "kl")
    return [
        _draw(folder, "loss", total, "Curves of the train and test loss over the epochs"),
        _draw(folder, "loss-reconstruction", reconstruction, "Curves of the reconstruction term"),
        _draw(folder, "loss-kl", kl, "Curves of the KL term"),
    ]


def draw_map(run: Run) -> Map | None:
    placed = latent_map(run.folder, run.latents) if run.has_latents else None
    if placed is None:
        return None
    latents = run.latents
    labels = None if latents.test_labels is None else latents.test_labels[placed.indices]
    picture = figures.latent_map(placed.points, labels, latents.class_names)
    num_points = len(placed.indices)
    features = latents.test_means[placed.indices]
    alt = f"Map of {num_points:,} test latents"
    if labels is not None:
        alt += ", coloured by class"
    return Map(
        _draw(run.folder, "tsne", picture.image, alt),
        num_points,
        perplexity_for(num_points),
        trust_in(placed.points, standardised(features)),
        thumbnails(
            run.images.test.pixels[placed.indices],
            picture.places,
            standouts.titles(run, placed.indices),
        ),
    )


def draw_traversal(run: Run) -> Traversal:
    """Decode along each latent dimension, the others at 0, the prior's mean."""
    vae = run.weights.vae
    num_dimensions, num_steps = vae.latent_dim, len(TRAVERSAL_STEPS)
    nats = _nats_per_dimension(run)
    order = np.argsort(-nats, kind="stable")[:MAX_TRAVERSED]
    latents = torch.zeros(len(order), num_steps, num_dimensions)
    for row, dimension in enumerate(order):
        latents[row, :, int(dimension)] = torch.from_numpy(TRAVERSAL_STEPS)
    decoded = as_pixels(vae.decode(latents.flatten(end_dim=1)))
    names = [f"z{dimension + 1}" for dimension in order]
    steps = [
        f"{step:+.1f}".replace("-", "\N{MINUS SIGN}") if step else "0" for step in TRAVERSAL_STEPS
    ]
    images = decoded.reshape(len(order), num_steps, *vae.image_shape)
    alt = "Decoded images: a row for each latent dimension, from low values to high ones"
    picture = figures.latent_traversal(images, names, steps)
    return Traversal(
        _draw(run.folder, "traversal", picture, alt),
        len(order),
        [(name, f"{nats[dimension]:.2f}") for name, dimension in zip(names, order, strict=True)],
    )


def draw_confusion(run: Run) -> Picture | None:
    if not run.has_svm:
        return None
    picture = figures.confusion_counts(
        np.array(run.svm_metrics["confusion_matrix"]), class_names(run.svm_metrics)
    )
    alt = "Confusion matrix: true classes in rows, predicted classes in columns, with counts"
    return _draw(run.folder, "confusion", picture, alt)


def _draw(run: RunFolder, name: str, image: Image.Image, alt: str) -> Picture:
    path = run.figures / f"{name}.png"
    pictures.write_image(path, image)
    print(f"drawn: {path}", flush=True)
    return _embed(path, alt)


def _embed(path: Path, alt: str) -> Picture:
    """A PNG of the run as a data URI, so that the page is one file."""
    try:
        with open_image(path, only=("PNG",)) as image:
            image.load()
            width, height = image.size
    except UNREADABLE as error:
        raise UserError(f"{path}: not a whole picture any more; delete it") from error
    return Picture(png_uri(path.read_bytes()), alt, width, height)


def _some(pixels: PixelArray, most: int) -> NDArray[np.uint8]:
    some: NDArray[np.uint8] = pixels[some_indices(len(pixels), most)]
    return some


def _nats_per_dimension(run: Run) -> NDArray[np.float32]:
    """KL of the posterior from the prior in each latent dimension [L], mean over test images."""
    pixels = torch.from_numpy(_some(run.images.test.pixels, NUM_MEASURED))
    kl = kl_per_dimension(run.weights.vae.encode(as_floats(pixels)))
    nats: NDArray[np.float32] = kl.mean(dim=0).numpy()
    return nats
