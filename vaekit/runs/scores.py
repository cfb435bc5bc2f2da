"""How strange images are to a run, which of its own are like them, and which labels are wrong."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.evaluation.mislabelled import Suspicions, suspect_labels
from vaekit.evaluation.neighbours import Neighbours, Stacked, nearest, require_enough
from vaekit.evaluation.strangeness import (
    Figures,
    Typical,
    distances_from,
    distances_from_others,
    percentiles,
    smallest_share,
    strangeness,
    threshold,
    typical_of,
)
from vaekit.images.image_set import Images
from vaekit.images.mapped import PixelArray
from vaekit.images.pixels import as_floats
from vaekit.models.gaussian import kl_divergence
from vaekit.runs.inference import encode
from vaekit.runs.latents import Latents
from vaekit.runs.weights import Weights

# Shapes in comments: N images, L latent dimensions.

BATCH_SIZE = 500
MAX_MEASURED = 2000  # training images, and test images, that are measured to tell what is usual


class Scores(NamedTuple):
    """How strange N images are. `strangeness` is the score; what it is made of stands beside it."""

    strangeness: NDArray[np.float64]  # [N], deviations from what is usual of training images
    percentile: NDArray[np.float64]  # [N], of a hundred training images as strange or less so
    is_strange: NDArray[np.bool_]  # [N], beyond `threshold`
    distance: NDArray[np.float64]  # [N], mean distance from the nearest training latents
    mse: NDArray[np.float64]  # [N], of the reconstruction, of values in [0, 1]
    reconstruction: NDArray[np.float64]  # [N], nats of the image given the mean of its latent
    kl: NDArray[np.float64]  # [N], nats
    threshold: float  # a strangeness
    smallest_share: float  # of false alarms, that the run's test images can tell


class _OfModel(NamedTuple):
    """What the model alone says of N images, each [N]."""

    mse: NDArray[np.float64]
    reconstruction: NDArray[np.float64]
    kl: NDArray[np.float64]


def score(
    weights: Weights,
    latents: Latents,
    images: Images,
    pixels: PixelArray,
    k: int,
    false_alarms: float,
) -> Scores:
    """How strange each of `pixels` [N, C, H, W] is, beside the images of a run and their latents.

    Distances are from the k nearest training images; the threshold is such that a new image like
    the test images lies beyond it with probability `false_alarms`. Raises `UserError` for more
    neighbours than there are other training images, and for a share that is none.
    """
    typical = _typical(weights, latents, images, k)
    limit = threshold(typical, false_alarms)
    of_model = _of_model(weights, pixels)
    distance = distances_from(latents.train_means, encode(weights, pixels).mean, k)
    found = strangeness(Figures(distance, of_model.mse), typical.usual)
    return Scores(
        strangeness=found,
        percentile=percentiles(found, typical),
        is_strange=found > limit,
        distance=distance,
        **of_model._asdict(),
        threshold=limit,
        smallest_share=smallest_share(typical),
    )


def find_alike(weights: Weights, latents: Latents, pixels: NDArray[np.uint8], k: int) -> Neighbours:
    """The k images of a run whose latents lie nearest to those of the images [N, C, H, W].

    Indices count the training images, and then the test images. Raises `UserError` for more
    neighbours than there are images.
    """
    return nearest(_means(latents), encode(weights, pixels).mean, k)


def suspect(latents: Latents, k: int) -> Suspicions:
    """What the k nearest images of each image of a run say of its label; rows as `latents.rows`.

    Raises `UserError` without labels, for those of one class, and for fewer than k other images.
    """
    if latents.train_labels is None or latents.test_labels is None:
        raise UserError("the images have no labels, so none of them can be wrong")
    labels = np.concatenate([latents.train_labels, latents.test_labels])
    return suspect_labels(_means(latents), labels, k)


def _means(latents: Latents) -> Stacked:
    """Those of all images of a run."""
    return Stacked(latents.train_means, latents.test_means)


def _typical(weights: Weights, latents: Latents, images: Images, k: int) -> Typical:
    """What is usual of images of the run, of at most `MAX_MEASURED` of either split."""
    train, test = latents.train_means, latents.test_means
    require_enough(k, len(train) - 1)
    of_train, of_test = _evenly(len(train)), _evenly(len(test))
    return typical_of(
        Figures(
            distances_from_others(train, of_train, k),
            _of_model(weights, images.train.pixels[of_train]).mse,
        ),
        Figures(
            distances_from(train, test[of_test], k),
            _of_model(weights, images.test.pixels[of_test]).mse,
        ),
    )


def _evenly(count: int) -> NDArray[np.int64]:
    measured = min(count, MAX_MEASURED)
    return np.arange(measured) * count // measured


@torch.no_grad()
def _of_model(weights: Weights, pixels: PixelArray) -> _OfModel:
    vae, figures = weights.vae, np.empty((3, len(pixels)))
    for start in range(0, len(pixels), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        images = as_floats(torch.from_numpy(np.array(pixels[batch], order="C")))
        posterior = vae.encode(images)
        outputs = vae.dec(posterior.mean).float()
        errors = (vae.likelihood.mean(outputs) - images).square().flatten(start_dim=1)
        figures[0, batch] = errors.mean(dim=1).numpy()
        figures[1, batch] = vae.likelihood.nats(images, outputs, vae.log_scale).numpy()
        figures[2, batch] = kl_divergence(posterior).numpy()
    return _OfModel(*figures)
