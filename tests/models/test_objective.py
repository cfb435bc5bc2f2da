"""What a step minimises in the place of the bound, against torch.distributions."""

import math

import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from vaekit.config import ModelConfig
from vaekit.models.gaussian import Posterior
from vaekit.models.objective import (
    NegativeElbo,
    importance_weighted,
    kl_along_path,
    kl_beyond,
    weighted,
)
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
        kl = kl_beyond(posterior, free_bits)
        torch.testing.assert_close(weighted(elbo, kl, weight), wanted[None])


def test_the_kl_along_a_path_and_its_gradient_are_on_average_those_of_the_kl() -> None:
    torch.manual_seed(0)
    mean, log_variance = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    exact = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(dim=1)
    found = kl_along_path(Posterior(mean, log_variance), torch.randn(200_000, 2, 3))
    torch.testing.assert_close(found, exact, rtol=0.01, atol=0.01)
    leaves = (mean, log_variance)
    gradients = (torch.autograd.grad(each.sum(), leaves) for each in (found, exact))
    torch.testing.assert_close(*gradients, rtol=0.02, atol=0.02)


def test_along_the_path_no_sample_moves_a_posterior_that_is_exact() -> None:
    # z is standard normal and x normal about it, so that z given x is normal about x / 2.
    images, noise = torch.randn(5, 1), torch.randn(7, 5, 1)
    mean = (images / 2).requires_grad_()
    log_variance = torch.full_like(images, math.log(0.5)).requires_grad_()
    posterior = Posterior(mean, log_variance)
    nats = 0.5 * (images - posterior.sample(noise)).square().sum(dim=2).mean(dim=0)
    loss = (nats + kl_along_path(posterior, noise)).sum()
    for gradient in torch.autograd.grad(loss, (mean, log_variance)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)
