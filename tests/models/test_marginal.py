"""The importance-weighted likelihood is that of a model whose likelihood is known."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from vaekit.config import ModelConfig
from vaekit.models.gaussian import Posterior
from vaekit.models.marginal import marginal_nats
from vaekit.models.vae import SCALE_GAIN, VAE

SHAPE, NUM_LATENTS, SIGMA = (1, 4, 4), 2, 0.3


class LinearDecoder(nn.Module):
    """Pixels are a linear map of the latent: with Gaussian pixels, probabilistic PCA."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, latents: Tensor) -> Tensor:
        return (0.5 + latents @ self.weights.T).reshape(-1, *SHAPE)


class BroadEncoder(nn.Module):
    """The exact posterior but for its variance, as a trained encoder is but nearly exact."""

    def __init__(self, weights: Tensor, widening: float) -> None:
        super().__init__()
        precision = torch.eye(NUM_LATENTS) + weights.T @ weights / SIGMA**2
        self.to_mean = nn.Parameter(torch.linalg.solve(precision, weights.T / SIGMA**2))
        variance = torch.diagonal(torch.linalg.inv(precision))
        self.log_variance = nn.Parameter(variance.log() + math.log(widening))

    def forward(self, images: Tensor) -> Posterior:
        means = (images.flatten(start_dim=1) - 0.5) @ self.to_mean.T
        return Posterior(means, self.log_variance.expand_as(means))


def linear_vae(widening: float) -> tuple[VAE, Tensor]:
    """A VAE of orthogonal directions, and the covariance of its pixels."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(16, NUM_LATENTS, generator=generator))[0]
    weights = directions * torch.tensor([0.8, 0.4])
    config = ModelConfig(architecture="conv", likelihood="gaussian", latent_dim=NUM_LATENTS)
    vae = VAE(config, (1, 8, 8))
    vae.enc, vae.dec = BroadEncoder(weights, widening), LinearDecoder(weights)
    vae.scale = nn.Parameter(torch.tensor([math.log(SIGMA) / SCALE_GAIN]))
    return vae, weights @ weights.T + SIGMA**2 * torch.eye(16)


@pytest.mark.parametrize("widening", [1.0, 1.7])
def test_that_of_a_linear_gaussian_vae_is_the_closed_form(widening: float) -> None:
    vae, covariance = linear_vae(widening)
    known = MultivariateNormal(torch.full((16,), 0.5), covariance)
    torch.manual_seed(0)
    flat = known.sample((20,))
    images, noise = flat.reshape(20, *SHAPE), torch.randn(2000, 20, NUM_LATENTS)
    found = marginal_nats(vae, images, noise, at_once=500)
    expected = -known.log_prob(flat)
    torch.testing.assert_close(found.estimate, expected, atol=0.05, rtol=0)
    if widening == 1:  # the posterior is exact: each sample gives the likelihood itself
        torch.testing.assert_close(found.estimate, expected, atol=1e-3, rtol=0)
    else:
        assert (found.bound > found.estimate).all()


def test_how_many_are_decoded_at_a_time_does_not_matter() -> None:
    vae, _ = linear_vae(1.7)
    torch.manual_seed(0)
    images, noise = torch.rand(3, *SHAPE), torch.randn(7, 3, NUM_LATENTS)
    found = [marginal_nats(vae, images, noise, at_once) for at_once in (1, 10, 500)]
    for each in found[1:]:
        torch.testing.assert_close(each, found[0])
