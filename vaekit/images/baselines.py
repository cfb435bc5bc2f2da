"""How well images are told by what takes no training: their mean, and principal components."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.images.mapped import PixelArray

# Shapes in comments: N images, D pixels with all their channels, K components.

MAX_FITTED = 2**26  # values that components are fitted on at most: 256 MB as float32
BATCH_SIZE = 500


class Components(NamedTuple):
    """Principal components of images in [0, 1], the largest first."""

    mean: NDArray[np.float32]  # [D]
    directions: NDArray[np.float32]  # [K, D], orthonormal
    num_fitted: int  # images that they were fitted on


def fit_components(pixels: PixelArray, most: int) -> Components:
    """At most `most` components of `pixels` [N, C, H, W]; none where no two images differ.

    Of a large set evenly spaced images are taken, as many as `MAX_FITTED` allows.
    """
    num_values = pixels[0].size
    num_fitted = min(len(pixels), max(2, MAX_FITTED // num_values))
    chosen = np.arange(num_fitted) * len(pixels) // num_fitted
    images = as_rows(pixels[chosen])
    if not (images != images[0]).any():
        return Components(images[0], np.zeros((0, num_values), np.float32), num_fitted)
    from sklearn.decomposition import PCA  # whose time who only reads a run need not spend

    pca = PCA(min(most, num_fitted, num_values), random_state=0).fit(images)
    return Components(pca.mean_, pca.components_, num_fitted)


def project(batch: NDArray[np.uint8], components: Components) -> NDArray[np.float32]:
    """The scores [B, K] of a batch of images [B, C, H, W]."""
    scores = (as_rows(batch) - components.mean) @ components.directions.T
    return scores.astype(np.float32, copy=False)


def squared_errors(
    batch: NDArray[np.uint8], scores: NDArray[np.float32], components: Components
) -> NDArray[np.float64]:
    """By number of components, from none to all, what they leave of a batch [K + 1].

    Sums over images and pixels of squared differences in [0, 1]; with none it is the mean image.
    """
    centred = as_rows(batch) - components.mean
    explained = np.square(scores, dtype=np.float64).sum(axis=0)
    total = np.square(centred, dtype=np.float64).sum()
    left: NDArray[np.float64] = total - np.concatenate([[0.0], np.cumsum(explained)])
    return np.maximum(left, 0)  # rounding


def mean_of(pixels: PixelArray) -> NDArray[np.float64]:
    """The mean image [D] in [0, 1] of `pixels` [N, C, H, W]."""
    total = np.zeros(pixels[0].size)
    for start in range(0, len(pixels), BATCH_SIZE):
        batch = pixels[start : start + BATCH_SIZE]
        total += batch.reshape(len(batch), -1).sum(axis=0, dtype=np.int64)
    return total / (255 * len(pixels))


def bernoulli_nats(
    train_mean: NDArray[np.float64], num_train: int, test_mean: NDArray[np.float64]
) -> float:
    """Nats an image of one Bernoulli distribution a pixel, the same for all images.

    The training images give the probabilities, smoothed by half an image of each kind (Krichevsky
    and Trofimov, 1981). The cross-entropy is linear in the pixels: the mean test image suffices.
    """
    on = (train_mean * num_train + 0.5) / (num_train + 1)
    return float(-(test_mean * np.log(on) + (1 - test_mean) * np.log1p(-on)).sum())


def as_rows(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images [N, C, H, W] as values in [0, 1], [N, D]."""
    rows: NDArray[np.float32] = pixels.reshape(len(pixels), -1).astype(np.float32)
    rows /= 255
    return rows
