"""What the model of a run makes of images and of latents: arrays in, arrays out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaekit.errors import UserError
from vaekit.images.mapped import PixelArray
from vaekit.images.pixels import as_floats, as_pixels
from vaekit.models.gaussian import Posterior
from vaekit.runs.svm import Svm
from vaekit.runs.weights import Weights
from vaekit.svm import table
from vaekit.training.noise import Stream, normal_noise

# Shapes in comments: N images, L latent dimensions, C channels, H height, W width, K classes.

BATCH_SIZE = 500


class Encoding(NamedTuple):
    """What the encoder says of N images: a diagonal Gaussian over the latents of each."""

    mean: NDArray[np.float32]  # [N, L]
    log_variance: NDArray[np.float32]  # [N, L]


class Prediction(NamedTuple):
    """What an SVM says of N images."""

    labels: NDArray[np.int64]  # [N], indices into the class names of the run
    scores: NDArray[np.float64]  # [N, K], votes plus squashed decisions; no probabilities
    names: tuple[str, ...]  # [N], of the labels
    classes: tuple[str, ...]  # [K], whose scores they are


def encode(weights: Weights, pixels: PixelArray) -> Encoding:
    """The posterior of each of the images [N, C, H, W]."""
    vae = weights.vae
    posteriors = _in_batches(lambda batch: torch.stack(vae.encode(as_floats(batch))), pixels, dim=1)
    mean, log_variance = posteriors.numpy()
    return Encoding(mean, log_variance)


def decode(weights: Weights, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The images [N, C, H, W] that are the means of the pixels, given latents [N, L].

    Raises `UserError` for latents of another shape, or that are no finite numbers.
    """
    vae = weights.vae
    return as_pixels(_in_batches(vae.decode, _require_latents(latents, vae.latent_dim)))


def reconstruct(weights: Weights, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images [N, C, H, W], decoded from the means of their latents."""
    vae = weights.vae
    return as_pixels(
        _in_batches(lambda batch: vae.decode(vae.encode(as_floats(batch)).mean), pixels)
    )


def sample(weights: Weights, count: int, seed: int) -> NDArray[np.uint8]:
    """New images [count, C, H, W], decoded from latents of the prior, a standard normal."""
    if count < 1:
        raise UserError(f"--count {count}: expected at least 1")
    if seed < 0:
        raise UserError(f"--seed {seed}: expected at least 0")
    shape = (count, weights.vae.latent_dim)
    latents = normal_noise(shape, seed, Stream.SAMPLES, 0, torch.device("cpu"))
    return as_pixels(_in_batches(weights.vae.decode, latents.numpy()))


def interpolate(
    weights: Weights, first: NDArray[np.uint8], last: NDArray[np.uint8], steps: int
) -> NDArray[np.uint8]:
    """Images [steps, C, H, W] decoded from evenly spaced points between the means of two others.

    `first` and `last` are one image each, [1, C, H, W]; the ends are their reconstructions.
    """
    if steps < 2:
        raise UserError(f"--steps {steps}: expected at least 2, the reconstructions of both images")
    ends = encode(weights, np.concatenate([first, last])).mean
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return decode(weights, (1 - share) * ends[:1] + share * ends[1:])


def predict_latents(svm: Svm, encoding: Encoding) -> Prediction:
    """The class of each image that was encoded."""
    labels, scores = table.predict(svm.table, np.concatenate(encoding, axis=1))
    names = tuple(svm.class_names[label] for label in labels)
    return Prediction(
        labels, scores, names, tuple(svm.class_names[label] for label in svm.table.classes)
    )


@torch.no_grad()
def _in_batches(
    function: Callable[[Tensor], Tensor], rows: NDArray[Any] | PixelArray, dim: int = 0
) -> Tensor:
    """What `function` says of some rows at a time, of their own memory, joined in `dim`."""
    starts = range(0, len(rows), BATCH_SIZE)
    batches = (np.array(rows[start : start + BATCH_SIZE], order="C") for start in starts)
    return torch.cat([function(torch.from_numpy(batch)) for batch in batches], dim=dim)


def _require_latents(latents: Any, latent_dim: int) -> NDArray[np.float32]:
    expected = f"expected numbers [N, {latent_dim}]"
    if isinstance(latents, Encoding | Posterior):
        raise UserError(f"latents: an encoding, {expected}; give its mean")
    array = np.asarray(latents)
    if array.dtype.kind not in "iuf":
        raise UserError(f"latents: {array.dtype}, {expected}")
    if array.ndim != 2 or array.shape[1] != latent_dim or not len(array):
        raise UserError(
            f"latents: the shape {[*array.shape]}, {expected}; give latents[None] for a single one"
        )
    if not np.isfinite(array).all():
        raise UserError(f"latents: NaN or infinite values, {expected} that are finite")
    return array.astype(np.float32)
