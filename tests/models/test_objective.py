"""What a step minimises in the place of the bound, against torch.distributions."""

import math

import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from vaekit.config import ModelConfig
from vaekit.models.gaussian import Posterior
from vaekit.models.objective import NegativeElbo, importance_weighted, weighted
from vaekit.models.vae import VAE

NUM_SAMPLES = 5


def a_pass() -> tuple[VAE, torch.Tensor, torch.Tensor]:
    """A VAE, images of two values, and noise [K, B, L]."""
    torch.manual_seed(0)
    vae = VAE(ModelConfig(latent_dim=3, width=2), (1, 9, 8)).requires_grad_(False)
    return vae, torch.rand(4, 1, 9, 8).round(), torch.randn(NUM_SAMPLES, 4, 3)


def test_several_samples_give_the_mean_of_their_bounds() -> None:
    vae, images, noise = a_pass()
    each = [vae.elbo(images, one) for one in noise]
    elbo = vae.elbo(images, noise)
    torch.testing.assert_close(elbo.kl, each[0].kl)
    mean = torch.stack([one.reconstruction for one in each]).mean(dim=0)
    torch.testing.assert_close(elbo.reconstruction, mean)


def test_the_importance_weighted_bound_is_that_of_its_definition() -> None:
    vae, images, noise = a_pass()
    output = vae(images, noise)
    mean, log_variance = output.posterior
    posterior, prior = Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)
    log_weights = []
    for one in noise:
        latents = output.posterior.sample(one)
        likelihood = Bernoulli(vae.decode(latents)).log_prob(images).sum(dim=(1, 2, 3))
        ratio = prior.log_prob(latents) - posterior.log_prob(latents)
        log_weights.append(likelihood + ratio.sum(dim=1))
    exact = math.log(NUM_SAMPLES) - torch.logsumexp(torch.stack(log_weights), dim=0)
    bound = importance_weighted(vae.sample_nats(output, images), output.posterior, noise)
    torch.testing.assert_close(bound, exact)


def test_a_weighted_bound_weighs_the_kl_above_its_free_nats() -> None:
    posterior = Posterior(torch.tensor([[0.1, 2.0]]), torch.tensor([[0.0, -1.0]]))
    deviation = (posterior.log_variance / 2).exp()
    small, large = kl_divergence(Normal(posterior.mean, deviation), Normal(0.0, 1.0))[0]
    elbo = NegativeElbo(torch.tensor([10.0]), (small + large)[None])
    assert small < 0.5 < large
    for kl_weight, free_bits, wanted in (
        (None, 0.0, 10 + small + large),
        (4.0, 0.0, 10 + 4 * (small + large)),
        (None, 0.5, 10 + 0.5 + large),
        (0.0, 0.5, torch.tensor(10.0)),
    ):
        weight = None if kl_weight is None else torch.tensor(kl_weight)
        torch.testing.assert_close(weighted(elbo, posterior, weight, free_bits), wanted[None])
