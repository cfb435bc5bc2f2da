"""The negative evidence lower bound, and what a step minimises in its place."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.models.gaussian import Posterior, kl_per_dimension

# Shapes in comments: K samples, B batch, L latent dimensions.


class NegativeElbo(NamedTuple):
    """Nats per image, each of shape [B]."""

    reconstruction: Tensor
    kl: Tensor

    @property
    def loss(self) -> Tensor:
        return self.reconstruction + self.kl


def weighted(elbo: NegativeElbo, kl: Tensor, kl_weight: Tensor | None) -> Tensor:
    """The bound [B] with `kl_weight` on `kl` (Higgins and others, 2017); None stands for 1."""
    return elbo.reconstruction + (kl if kl_weight is None else kl_weight * kl)


def kl_beyond(posterior: Posterior, free_bits: float) -> Tensor:
    """The KL [B], of which each dimension counts as no less than `free_bits` nats.

    So that nothing is gained by emptying one (Kingma and others, 2016; theirs is of a batch's
    mean, which would depend on how ranks divide the batch).
    """
    return kl_per_dimension(posterior).clamp(min=free_bits).sum(dim=1)


def kl_along_path(posterior: Posterior, noise: Tensor) -> Tensor:
    """The KL of the samples that `noise` [K, B, L] gives, their mean [B], for its gradient alone.

    That leaves out the score of the posterior, which is zero on average and the more of the noise
    the better the posterior is (Roeder and others, 2017).
    """
    latents = posterior.sample(noise)
    mean, log_variance = posterior.mean.detach(), posterior.log_variance.detach()
    squares = (latents - mean).square() * torch.exp(-log_variance)
    return 0.5 * (latents.square() - squares - log_variance).sum(dim=2).mean(dim=0)


def importance_weighted(nats: Tensor, posterior: Posterior, noise: Tensor) -> Tensor:
    """The importance-weighted bound [B], negative (Burda and others, 2016, equation 8).

    `nats` [K, B] are minus log p(x | z) of the samples that `noise` [K, B, L] gives.
    """
    latents = posterior.sample(noise)
    # Minus log p(z) / q(z | x): the normalisers of both Gaussians are the same.
    prior_to_posterior = latents.square() - noise.square() - posterior.log_variance
    log_weights = -nats - 0.5 * prior_to_posterior.sum(dim=2)
    return math.log(len(nats)) - torch.logsumexp(log_weights, dim=0)
