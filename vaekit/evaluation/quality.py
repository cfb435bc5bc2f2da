"""How well reconstructions, latent dimensions and a map keep what is there."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from sklearn.manifold import trustworthiness

from vaekit.storage.arrays import blocks_of_rows

ACTIVE = 0.01  # variance of a latent's mean over images, from which on it is in use

WINDOW = 11  # pixels a side, of SSIM
_SIGMA = 1.5  # pixels, of its Gaussian
_K1, _K2 = 0.01, 0.03

MAX_COMPARED = 2000  # points of a map: every pair of them is compared
NUM_NEIGHBOURS = 10


def ssim(images: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """The structural similarity [B] of images [B, C, H, W] in [0, 1], the mean over channels.

    As in Wang, Bovik, Sheikh and Simoncelli, 2004: a Gaussian window of 11x11 pixels, at every
    place where it fits whole. None for images smaller than that.
    """
    if min(images.shape[2:]) < WINDOW:
        return None
    x, y = images.astype(np.float64), others.astype(np.float64)
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    means: NDArray[np.float64] = similarity.mean(axis=(1, 2, 3))
    return means


def _windowed(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted means over all windows inside the images."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (2, 3):
        images = correlate1d(images, weights, axis=axis)
    border = WINDOW // 2
    inside: NDArray[np.float64] = images[..., border:-border, border:-border]
    return inside


def kl_of_dimensions(latents: NDArray[np.float32]) -> NDArray[np.float64]:
    """Nats that each dimension adds to the KL [L], the mean over `latents` [N, 2L].

    They are means ++ log-variances (Kingma and Welling, 2014, appendix B).
    """
    total = np.zeros(latents.shape[1] // 2)
    for block in blocks_of_rows(*latents.shape):
        mean, log_variance = np.split(latents[block].astype(np.float64), 2, axis=1)
        total += (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=0)
    return 0.5 * total / len(latents)


def active_dimensions(latents: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which dimensions [L] of `latents` [N, 2L] are in use (Burda and others, 2016, section 5)."""
    means = latents[:, : latents.shape[1] // 2]
    blocks = [*blocks_of_rows(*means.shape)]
    centre = sum(means[block].sum(axis=0, dtype=np.float64) for block in blocks) / len(means)
    squares = sum(np.square(means[block] - centre).sum(axis=0) for block in blocks)
    active: NDArray[np.bool_] = squares / len(means) > ACTIVE
    return active


def trust_in(points: NDArray[np.float32], features: NDArray[np.float32]) -> float | None:
    """The trustworthiness of a map `points` [n, 2] of `features` [n, D] (Venna and Kaski, 2001).

    1: whatever is a neighbour on the map is one among the features; by chance about 0.5. Of more
    than `MAX_COMPARED` points evenly spaced ones are taken. None for fewer than three.
    """
    count = min(len(points), MAX_COMPARED)
    chosen = np.arange(count) * len(points) // max(count, 1)
    k = min(NUM_NEIGHBOURS, (count - 1) // 2)
    if k < 1:
        return None
    return float(trustworthiness(features[chosen], points[chosen], n_neighbors=k))
