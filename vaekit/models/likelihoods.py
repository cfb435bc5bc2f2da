"""How likely an image is, given what the decoder says of it: one entry a likelihood."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

# Shapes in comments: B batch, C channels, P outputs a channel, H height, W width.


@dataclass(frozen=True)
class Likelihood:
    """A distribution of pixels in [0, 1], independent of one another given the outputs.

    It has no weights of its own: whatever it takes from an image comes in the outputs
    [B, P * C, H, W], float32, of which it wants P for each channel.
    """

    outputs_per_channel: int
    nats: Callable[[Tensor, Tensor], Tensor]
    """Minus the log-likelihood [B] of images [B, C, H, W] in [0, 1], given outputs."""
    mean: Callable[[Tensor], Tensor]
    """The images [B, C, H, W] in [0, 1] that are the means of the pixels, given outputs."""


def _bernoulli_nats(images: Tensor, logits: Tensor) -> Tensor:
    """The cross-entropy summed over pixels, which need not be 0 or 1."""
    entropies = binary_cross_entropy_with_logits(logits, images, reduction="none")
    return entropies.flatten(start_dim=1).sum(dim=1)


LIKELIHOODS = {
    "bernoulli": Likelihood(outputs_per_channel=1, nats=_bernoulli_nats, mean=torch.sigmoid),
}
