"""The posterior against torch.distributions."""

import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as exact_kl

from vaekit.models.gaussian import Posterior, kl_divergence, kl_per_dimension


def test_the_kl_is_that_of_two_gaussians_in_nats_per_image() -> None:
    generator = torch.Generator().manual_seed(0)
    posterior = Posterior(
        torch.randn(5, 4, generator=generator), torch.randn(5, 4, generator=generator)
    )
    exact = exact_kl(Normal(posterior.mean, (posterior.log_variance / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_per_dimension(posterior), exact)
    torch.testing.assert_close(kl_divergence(posterior), exact.sum(dim=1))


def test_samples_have_the_posteriors_moments() -> None:
    posterior = Posterior(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0]]))
    generator = torch.Generator().manual_seed(0)
    samples = posterior.sample(torch.randn(200_000, 2, generator=generator))
    torch.testing.assert_close(samples.mean(0), torch.tensor([1.0, -2.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(samples.var(0), torch.tensor([0.0, 2.0]).exp(), atol=0, rtol=0.02)
