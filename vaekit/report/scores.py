"""The strangest and the most typical of a person's images on one page that opens offline."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import say
from vaekit.images.inputs import Inputs
from vaekit.report.embedding import Picture, render
from vaekit.report.standouts import beside_reconstructions
from vaekit.runs.run import Run
from vaekit.runs.scores import Scores
from vaekit.storage.files import write_text

NUM_SHOWN = 24  # of the strangest, and of the most typical


class Shown(NamedTuple):
    """An image as the page has it."""

    picture: Picture  # of it and its reconstruction
    name: str
    place: str  # its whole path
    percentile: str
    distance: str
    mse: str
    is_strange: bool


class Part(NamedTuple):
    """Images of one kind, and what to say of them."""

    title: str
    text: str
    images: list[Shown]


def write_scores_page(path: Path, run: Run, inputs: Inputs, scores: Scores) -> None:
    """Write the page of images [N, C, H, W] and their scores."""
    order = np.argsort(-scores.strangeness, kind="stable")
    page = {
        "name": run.folder.path.resolve().name,
        "num_images": len(order),
        "num_strange": int(scores.is_strange.sum()),
        "threshold": scores.threshold,
        "parts": _parts(run, inputs, scores, order),
    }
    write_text(path, render("vaekit.report", "scores.html.jinja", page))
    say(f"page: {path}")


def _parts(run: Run, inputs: Inputs, scores: Scores, order: NDArray[np.int64]) -> list[Part]:
    if len(order) <= 2 * NUM_SHOWN:
        kinds = [
            ("All images, the strangest first", "From the strangest to the most typical.", order)
        ]
    else:
        strangest = "Farthest from training images, or reconstructed worst."
        typical = "Near training images, and reconstructed well, the most typical first."
        kinds = [
            ("The strangest", strangest, order[:NUM_SHOWN]),
            ("The most typical", typical, order[::-1][:NUM_SHOWN]),
        ]
    return [Part(title, text, _shown(run, inputs, scores, some)) for title, text, some in kinds]


def _shown(run: Run, inputs: Inputs, scores: Scores, chosen: NDArray[np.int64]) -> list[Shown]:
    every_file = inputs.files or [f"image {index}" for index in range(len(inputs.pixels))]
    files = [every_file[index] for index in chosen]
    names = [Path(file).name for file in files]
    pictures = beside_reconstructions(run.weights, inputs.pixels[chosen], names)
    return [
        Shown(
            picture,
            name,
            file,
            f"{scores.percentile[index]:.1f}",
            f"{scores.distance[index]:.2f}",
            f"{scores.mse[index]:.4f}",
            bool(scores.is_strange[index]),
        )
        for index, file, name, picture in zip(chosen, files, names, pictures, strict=True)
    ]
