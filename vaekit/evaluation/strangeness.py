"""How far an image lies from those that a model was trained on, and when it is strange."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.evaluation.neighbours import nearest, nearest_others

MAX_MEASURED = 5000  # training images whose distance from the others is measured

# Shapes in comments: N training images, M images to calibrate on, B images, L latent dimensions.


class Typical(NamedTuple):
    """What the distances of images that belong are like."""

    train: NDArray[np.float64]  # rising: of training images from the others
    calibration: NDArray[np.float64]  # [M], rising: of images that the model was not trained on


def distances_from(
    train: NDArray[np.float32], latents: NDArray[np.float32], k: int
) -> NDArray[np.float64]:
    """The mean distance [B] of `latents` [B, L] from the k nearest of `train` [N, L].

    Latents are means as the encoder gives them, not standardised: a dimension that holds nothing
    stays near 0 and counts for nothing. Raises `UserError` for fewer than k training images.
    """
    means: NDArray[np.float64] = nearest(train, latents, k).distances.mean(axis=1)
    return means


def typical_distances(train: NDArray[np.float32], held_out: NDArray[np.float32], k: int) -> Typical:
    """Those of the training images `train` [N, L], each from the others, and of `held_out` [M, L].

    Of a large set `MAX_MEASURED` evenly spaced training images are measured. Without held-out
    images the training images stand for them, too.
    """
    count = min(len(train), MAX_MEASURED)
    measured = np.arange(count) * len(train) // max(count, 1)
    own = np.sort(nearest_others(train, k, measured).distances.mean(axis=1))
    if not len(held_out):
        return Typical(own, own)
    return Typical(own, np.sort(distances_from(train, held_out, k)))


def percentiles(distances: NDArray[np.float64], typical: Typical) -> NDArray[np.float64]:
    """Of how many training images in a hundred the distance is smaller or equal, [B]."""
    shares = np.searchsorted(typical.train, distances, side="right") / len(typical.train)
    return 100 * shares


def threshold(typical: Typical, false_alarms: float) -> float:
    """The distance beyond which an image is strange, for a share of false alarms.

    A new image that belongs lies beyond it with at most that probability, if it comes from where
    the M images to calibrate on come from: the ceil((M + 1)(1 - share))-th smallest of their
    distances (split conformal prediction; Vovk, Gammerman and Shafer, 2005; Papadopoulos and
    others, 2002). Too few of them for the share give their largest distance, see
    `smallest_share`. Raises `UserError` for a share that is none.
    """
    if not 0 < false_alarms < 1:
        raise UserError(
            f"a share of false alarms of {false_alarms:g}: expected more than 0 and less than 1, "
            f"as 0.01"
        )
    count = len(typical.calibration)
    rank = int(np.ceil((count + 1) * (1 - false_alarms) - 1e-9))  # rounding of the product
    return float(typical.calibration[min(rank, count) - 1])


def smallest_share(typical: Typical) -> float:
    """The smallest share of false alarms that the images to calibrate on can tell."""
    return 1 / (len(typical.calibration) + 1)
