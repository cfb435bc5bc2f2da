"""The posterior over latents, a diagonal Gaussian, and its divergence from the prior."""

from typing import NamedTuple

import torch
from torch import Tensor

# exp() of these bounds is far inside float32; a trained model stays well within them.
MIN_LOG_VARIANCE = -30.0
MAX_LOG_VARIANCE = 20.0


class Posterior(NamedTuple):
    """The encoder's diagonal Gaussian over latents, float32."""

    mean: Tensor  # [B, L]
    log_variance: Tensor  # [B, L]

    def sample(self, noise: Tensor) -> Tensor:
        """Latents [B, L] from standard normal `noise` [B, L] (the reparameterisation trick)."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise


def kl_divergence(posterior: Posterior) -> Tensor:
    """KL(posterior || standard normal), nats per image, shape [B] (Kingma and Welling, 2014)."""
    return kl_per_dimension(posterior).sum(dim=1)


def kl_per_dimension(posterior: Posterior) -> Tensor:
    """What each latent dimension adds to the KL, nats, shape [B, L] (same paper, appendix B)."""
    mean, log_variance = posterior
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
