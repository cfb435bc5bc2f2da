"""How strange images are to a run, and which of its images are like them."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vaekit.evaluation.neighbours import Neighbours, nearest
from vaekit.evaluation.strangeness import (
    distances_from,
    percentiles,
    smallest_share,
    threshold,
    typical_distances,
)
from vaekit.images.pixels import as_floats
from vaekit.models.gaussian import kl_divergence
from vaekit.runs.inference import encode
from vaekit.runs.latents import Latents
from vaekit.runs.weights import Weights

# Shapes in comments: N images, L latent dimensions.

BATCH_SIZE = 500


class Scores(NamedTuple):
    """How strange N images are. `distance` is the score to go by, the others stand beside it."""

    mse: NDArray[np.float64]  # [N], of the reconstruction, of values in [0, 1]
    reconstruction: NDArray[np.float64]  # [N], nats of the image given the mean of its latent
    kl: NDArray[np.float64]  # [N], nats
    distance: NDArray[np.float64]  # [N], mean distance from the nearest training latents
    percentile: NDArray[np.float64]  # [N], of a hundred training images as near or nearer
    is_strange: NDArray[np.bool_]  # [N], beyond `threshold`
    threshold: float  # a distance
    smallest_share: float  # of false alarms, that the run's test images can tell


def score(
    weights: Weights,
    latents: Latents,
    pixels: NDArray[np.uint8],
    k: int,
    false_alarms: float,
) -> Scores:
    """How strange each of the images [N, C, H, W] is, beside those of a run and their latents.

    Distances are from the k nearest training images; the threshold is such that a new image like
    the test images lies beyond it with probability `false_alarms`. Raises `UserError` for more
    neighbours than there are training images, and for a share that is none.
    """
    num_latents = weights.vae.latent_dim
    train, test = latents.train[:, :num_latents], latents.test[:, :num_latents]
    typical = typical_distances(train, test, k)
    limit = threshold(typical, false_alarms)
    mse, reconstruction, kl = _own_figures(weights, pixels)
    distance = distances_from(train, encode(weights, pixels).mean, k)
    return Scores(
        mse,
        reconstruction,
        kl,
        distance,
        percentiles(distance, typical),
        distance > limit,
        limit,
        smallest_share(typical),
    )


def find_alike(weights: Weights, latents: Latents, pixels: NDArray[np.uint8], k: int) -> Neighbours:
    """The k images of a run whose latents lie nearest to those of the images [N, C, H, W].

    Indices count the training images, and then the test images. Raises `UserError` for more
    neighbours than there are images.
    """
    every = np.concatenate([latents.train, latents.test])[:, : weights.vae.latent_dim]
    return nearest(every, encode(weights, pixels).mean, k)


@torch.no_grad()
def _own_figures(weights: Weights, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """MSE, nats of the reconstruction and KL of each image, [3, N]."""
    vae, figures = weights.vae, np.empty((3, len(pixels)))
    for start in range(0, len(pixels), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        images = as_floats(torch.from_numpy(np.array(pixels[batch], order="C")))
        posterior = vae.encode(images)
        outputs = vae.dec(posterior.mean).float()
        errors = (vae.likelihood.mean(outputs) - images).square().flatten(start_dim=1)
        figures[0, batch] = errors.mean(dim=1)
        figures[1, batch] = vae.likelihood.nats(images, outputs, vae.log_scale)
        figures[2, batch] = kl_divergence(posterior)
    return figures
