"""What stands out among the images of a run: the strangest, and those likely mislabelled."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.evaluation.mislabelled import MAX_EXAMINED, NUM_NEIGHBOURS
from vaekit.images.pictures import image_grid
from vaekit.report.embedding import Picture, embedded
from vaekit.runs.index import IndexRow, index_row
from vaekit.runs.inference import reconstruct
from vaekit.runs.run import Run
from vaekit.runs.scores import score
from vaekit.runs.weights import Weights

NUM_STRANGE = 12
NUM_MISLABELLED = 12
FALSE_ALARMS = 0.01


class Card(NamedTuple):
    """A small picture, and what is said of it."""

    picture: Picture
    title: str
    lines: list[str]


class Mislabelled(NamedTuple):
    """Labels that neighbours contradict."""

    num_examined: int
    num_likely: int
    cards: list[Card]  # the most suspicious first


def strangest(run: Run) -> list[Card]:
    """The strangest test images beside their reconstructions; of many, see `examined_step`."""
    if not run.has_latents or len(run.latents.train) < 2:
        return []
    weights, latents, images = run.weights, run.latents, run.images
    k = min(NUM_NEIGHBOURS, len(latents.train) - 1)
    step = examined_step(len(latents.test))
    examined = images.test.pixels[::step]
    found = score(weights, latents, images, examined, k, FALSE_ALARMS)
    chosen = np.argsort(-found.strangeness, kind="stable")[:NUM_STRANGE]
    first = len(latents.train)
    index = [index_row(images, first + step * row) for row in chosen.tolist()]
    pictures = beside_reconstructions(weights, examined[chosen], map(_named, index))
    return [
        Card(
            picture,
            _named(image),
            [
                *([] if image.class_name is None else [f"class {image.class_name}"]),
                f"distance {found.distance[row]:.2f}",
                f"MSE {found.mse[row]:.4f}",
                f"percentile {found.percentile[row]:.1f}",
            ],
        )
        for row, image, picture in zip(chosen, index, pictures, strict=True)
    ]


def beside_reconstructions(
    weights: Weights, pixels: NDArray[np.uint8], names: Iterable[str]
) -> list[Picture]:
    """A picture of each of the images [N, C, H, W] and its reconstruction."""
    return [
        embedded(image_grid(np.stack(pair), columns=2), f"{name}, and its reconstruction")
        for name, *pair in zip(names, pixels, reconstruct(weights, pixels), strict=True)
    ]


def examined_step(count: int) -> int:
    """One in how many of `count` test images is examined, at most `MAX_EXAMINED` in all."""
    return max(1, math.ceil(count / MAX_EXAMINED))


def mislabelled(run: Run) -> Mislabelled | None:
    """The images whose neighbours are of another class; None without latents of two classes."""
    if not run.has_latents:
        return None
    latents = run.latents
    if latents.train_labels is None or latents.test_labels is None:
        return None
    labels = np.concatenate([latents.train_labels, latents.test_labels])
    if len(np.unique(labels)) < 2:
        return None
    found = run.suspect_labels(min(NUM_NEIGHBOURS, len(labels) - 1))
    likely = found.likely_wrong()
    every = {"train": run.images.train.pixels, "test": run.images.test.pixels}
    cards = []
    for row, suspicion, suggested in list(zip(*likely, strict=True))[:NUM_MISLABELLED]:
        image = index_row(run.images, int(row))
        picture = image_grid(every[image.split][image.row][None])
        cards.append(
            Card(
                embedded(picture, _named(image)),
                f"{image.class_name}: rather {latents.class_names[suggested]}?",
                [_named(image), f"neighbours {100 * suspicion:.0f} % against it"],
            )
        )
    return Mislabelled(len(found.rows), len(likely.rows), cards)


def titles(run: Run, rows: NDArray[np.int64]) -> list[str]:
    """What to call some test images: its class, where it has one, and its file or number."""
    first = len(run.images.train.pixels)
    return [
        _named(image) if image.class_name is None else f"{image.class_name} · {_named(image)}"
        for image in (index_row(run.images, first + row) for row in rows.tolist())
    ]


def _named(image: IndexRow) -> str:
    """Its file, or which one it is of its split."""
    return image.file or f"{image.split} image {image.row}"
