"""How likely images are under a VAE, its latents averaged out."""

from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.models.gaussian import kl_divergence
from vaekit.models.objective import importance_weighted
from vaekit.models.vae import VAE, VAEOutput

# Shapes in comments: K samples, B batch, C channels, H height, W width, L latent dimensions.


class MarginalNats(NamedTuple):
    """Minus the log-likelihood of images, nats per image, each [B]."""

    estimate: Tensor  # by importance weighting
    bound: Tensor  # the negative ELBO, the mean over the same samples


@torch.no_grad()
def marginal_nats(vae: VAE, images: Tensor, noise: Tensor, at_once: int) -> MarginalNats:
    """Estimate minus log p(x) of `images` [B, C, H, W] in [0, 1] (Burda and others, 2016).

    Standard normal `noise` [K, B, L] draws K latents of each from its posterior; at most about
    `at_once` of them are decoded at a time. The estimate is too high on average, the less so the
    more samples there are, and never on average below the truth.
    """
    posterior = vae.encode(images)
    of_parts = []
    for part in noise.split(max(1, at_once // len(images))):
        outputs = vae.dec(posterior.sample(part).flatten(end_dim=1))
        of_parts.append(vae.sample_nats(VAEOutput(outputs, posterior), images))
    nats = torch.cat(of_parts)
    bound = nats.mean(dim=0) + kl_divergence(posterior)
    return MarginalNats(importance_weighted(nats, posterior, noise), bound)
