"""The objective against torch.distributions."""

import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from vaekit.models import objective
from vaekit.models.vae import Posterior


def a_posterior() -> Posterior:
    generator = torch.Generator().manual_seed(0)
    return Posterior(torch.randn(5, 4, generator=generator), torch.randn(5, 4, generator=generator))


def test_the_kl_is_that_of_two_gaussians_in_nats_per_image() -> None:
    posterior = a_posterior()
    exact = kl_divergence(
        Normal(posterior.mean, (posterior.log_variance / 2).exp()), Normal(0.0, 1.0)
    ).sum(dim=1)
    torch.testing.assert_close(objective.kl_divergence(posterior), exact)


def test_the_reconstruction_is_the_bernoulli_log_likelihood_summed_over_pixels() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 4 * torch.randn(5, 2, 3, 3, generator=generator)
    images = torch.rand(5, 2, 3, 3, generator=generator).round()
    elbo = objective.negative_elbo(logits, images, a_posterior())
    exact = -Bernoulli(logits=logits).log_prob(images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(elbo.reconstruction, exact)
    torch.testing.assert_close(elbo.loss, elbo.reconstruction + elbo.kl)


def test_low_precision_logits_are_summed_in_float32() -> None:
    logits = torch.full((1, 1, 32, 32), 3.0, dtype=torch.bfloat16)
    elbo = objective.negative_elbo(logits, torch.zeros(1, 1, 32, 32), a_posterior())
    assert elbo.reconstruction.dtype == torch.float32
    torch.testing.assert_close(
        elbo.reconstruction, torch.nn.functional.softplus(torch.tensor([3.0])) * 1024
    )


def test_extreme_logits_give_a_finite_loss() -> None:
    logits = torch.tensor([[[[1e4, -1e4]]]], requires_grad=True)
    images = torch.tensor([[[[0.0, 1.0]]]])
    loss = objective.negative_elbo(logits, images, a_posterior()).loss.mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
