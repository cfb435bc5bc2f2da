"""How far an image lies from those that a model was trained on, and when it is strange."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.evaluation.neighbours import nearest, nearest_others

# Shapes in comments: N training images, n of them, M images to calibrate on, B images,
# L latent dimensions.

NORMAL_DEVIATION = 1.4826  # of a normal distribution, in units of its median absolute deviation
SMALLEST = 1e-9  # of a distance and of an error, so that there are logarithms


class Figures(NamedTuple):
    """What is measured of B images: how far their latents lie, and what these lose."""

    distance: NDArray[np.float64]  # [B], the mean from the nearest training latents
    mse: NDArray[np.float64]  # [B], of the reconstruction


class Usual(NamedTuple):
    """Where logarithms of figures lie for training images, and how far they scatter, each [2]."""

    median: NDArray[np.float64]
    deviation: NDArray[np.float64]


class Typical(NamedTuple):
    """What the figures of images that belong are like."""

    usual: Usual
    train: NDArray[np.float64]  # [n], rising: the strangeness of training images
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


def distances_from_others(
    train: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> NDArray[np.float64]:
    """That of some `rows` [n] of `train` [N, L] from the k nearest of the others."""
    means: NDArray[np.float64] = nearest_others(train, k, rows).distances.mean(axis=1)
    return means


def strangeness(figures: Figures, usual: Usual) -> NDArray[np.float64]:
    """By how many deviations an image is farther, or is reconstructed worse, than usual, [B].

    It is the larger of the two: an image that the latents can't tell lies anywhere among them, and
    one that they tell may still lie where no other does. Both are taken of logarithms.
    """
    centred = _logarithms(figures) - usual.median[:, None]
    spread = usual.deviation[:, None]
    largest: NDArray[np.float64] = np.divide(
        centred, spread, out=np.zeros_like(centred), where=spread > 0
    ).max(axis=0)
    return largest


def typical_of(train: Figures, held_out: Figures) -> Typical:
    """From the figures of training images, distances from the others, and of held-out ones.

    Without held-out images the training images stand for them, too.
    """
    logarithms = _logarithms(train)
    median = np.median(logarithms, axis=1)
    scatter = np.median(np.abs(logarithms - median[:, None]), axis=1)
    usual = Usual(median, NORMAL_DEVIATION * scatter)
    own = np.sort(strangeness(train, usual))
    others = np.sort(strangeness(held_out, usual)) if len(held_out.mse) else own
    return Typical(usual, own, others)


def percentiles(values: NDArray[np.float64], typical: Typical) -> NDArray[np.float64]:
    """How many training images in a hundred are as strange or less so, [B]."""
    shares = np.searchsorted(typical.train, values, side="right") / len(typical.train)
    return 100 * shares


def threshold(typical: Typical, false_alarms: float) -> float:
    """The strangeness beyond which an image is strange, for a share of false alarms.

    A new image that belongs lies beyond it with at most that probability, if it comes from where
    the M images to calibrate on come from: the ceil((M + 1)(1 - share))-th smallest of theirs
    (split conformal prediction; Vovk, Gammerman and Shafer, 2005; Papadopoulos and others, 2002).
    Too few of them for the share give their largest, see `smallest_share`. Raises `UserError` for
    a share that is none.
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


def _logarithms(figures: Figures) -> NDArray[np.float64]:
    return np.log(np.maximum(np.stack([figures.distance, figures.mse]), SMALLEST))
