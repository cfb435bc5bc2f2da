"""How likely an image is, given what the decoder says of it: one entry a likelihood."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

# Shapes in comments: B batch, C channels, H height, W width.

MIN_LOG_SCALE = -7.0  # a quarter of the step between two of 256 levels
HALF_STEP = 0.5 / 255  # between two levels of a pixel, of which there are 256


@dataclass(frozen=True)
class Likelihood:
    """A distribution of pixels in [0, 1], independent of one another given the outputs.

    Outputs are [B, C, H, W], float32. A likelihood with a scale has one for all pixels, learnt
    with the weights.
    """

    nats: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    """Minus the log-likelihood [B] of images [B, C, H, W] in [0, 1], given outputs and log-scale.

    The log-scale has shape [1], and is None where there is no scale.
    """
    mean: Callable[[Tensor], Tensor]
    """The images [B, C, H, W] in [0, 1] that are the means of the pixels, given outputs."""
    initial_log_scale: float | None
    """None: it has no scale."""
    unit: str
    """What its figures are in, for people."""
    scale_of_deviation: float = 1.0
    """The scale of a distribution, over its standard deviation."""


def bits_per_dimension(nats: float, num_values: int) -> float:
    """A loss in nats per image as bits for each of its `num_values` pixel values."""
    return nats / (num_values * math.log(2))


def _bernoulli_nats(images: Tensor, logits: Tensor, _: Tensor | None) -> Tensor:
    """The cross-entropy summed over pixels, which need not be 0 or 1."""
    entropies = binary_cross_entropy_with_logits(logits, images, reduction="none")
    return entropies.flatten(start_dim=1).sum(dim=1)


def _gaussian_nats(images: Tensor, means: Tensor, log_scale: Tensor | None) -> Tensor:
    """Of a density, whose standard deviation is the scale (Rybkin and others, 2021)."""
    log_scale = _bounded(log_scale)
    squares = (images - means).square().flatten(start_dim=1).sum(dim=1)
    num_values = means[0].numel()
    normaliser = num_values * (log_scale + 0.5 * math.log(2 * math.pi))
    return 0.5 * squares * torch.exp(-2 * log_scale) + normaliser


def _logistic_nats(images: Tensor, means: Tensor, log_scale: Tensor | None) -> Tensor:
    """Of the probability of one of 256 levels (Salimans and others, 2017, section 2.1)."""
    inverse_scale = torch.exp(-_bounded(log_scale))
    centred = images - means
    upper = (centred + HALF_STEP) * inverse_scale
    lower = (centred - HALF_STEP) * inverse_scale
    # The mass between is sigmoid(upper) - sigmoid(lower); written so, no difference of two
    # nearly equal numbers is taken. The last levels reach to infinity.
    width = 2 * HALF_STEP * inverse_scale
    between = logsigmoid(upper) + logsigmoid(-lower) + torch.log(-torch.expm1(-width))
    log_masses = torch.where(images < HALF_STEP, logsigmoid(upper), between)
    log_masses = torch.where(images > 1 - HALF_STEP, logsigmoid(-lower), log_masses)
    return -log_masses.flatten(start_dim=1).sum(dim=1)


def _bounded(log_scale: Tensor | None) -> Tensor:
    assert log_scale is not None
    return log_scale.float().clamp(min=MIN_LOG_SCALE)


def _clamped(means: Tensor) -> Tensor:
    return means.clamp(0, 1)


LIKELIHOODS = {
    "bernoulli": Likelihood(
        _bernoulli_nats,
        torch.sigmoid,
        initial_log_scale=None,
        unit="nats per image, Bernoulli pixels",
    ),
    "gaussian": Likelihood(
        _gaussian_nats,
        _clamped,
        initial_log_scale=-1.0,
        unit="nats per image, density of Gaussian pixels in [0, 1]",
    ),
    "logistic": Likelihood(
        _logistic_nats,
        _clamped,
        initial_log_scale=-1.5,
        unit="nats per image, pixels of 256 levels, discretised logistic",
        scale_of_deviation=math.sqrt(3) / math.pi,
    ),
}
