"""The negative evidence lower bound, as pure functions."""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from vaekit.models.vae import Posterior


class NegativeElbo(NamedTuple):
    """Nats per image, each of shape [B]."""

    reconstruction: Tensor
    kl: Tensor

    @property
    def loss(self) -> Tensor:
        return self.reconstruction + self.kl


def negative_elbo(logits: Tensor, images: Tensor, posterior: Posterior) -> NegativeElbo:
    """The single-sample bound of Kingma and Welling (2014), in float32.

    `logits` and `images` (in [0, 1]) are [B, C, H, W]. The reconstruction term is the Bernoulli
    cross-entropy summed over pixels.
    """
    reconstruction = binary_cross_entropy_with_logits(
        logits.float(), images.float(), reduction="none"
    )
    return NegativeElbo(reconstruction.flatten(start_dim=1).sum(dim=1), kl_divergence(posterior))


def kl_divergence(posterior: Posterior) -> Tensor:
    """KL(posterior || standard normal), nats per image, shape [B]."""
    return kl_per_dimension(posterior).sum(dim=1)


def kl_per_dimension(posterior: Posterior) -> Tensor:
    """What each latent dimension adds to the KL, nats, shape [B, L] (same paper, appendix B)."""
    mean, log_variance = posterior
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
