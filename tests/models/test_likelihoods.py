"""Each likelihood keeps its promises; Bernoulli pixels against torch.distributions."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

from vaekit.models.likelihoods import LIKELIHOODS

BERNOULLI = LIKELIHOODS["bernoulli"]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_likelihood_gives_nats_per_image_and_means_in_0_to_1(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    images = normal(5, 2, 4, 3).sigmoid()
    outputs = 4 * normal(5, 2 * likelihood.outputs_per_channel, 4, 3)
    nats = likelihood.nats(images, outputs)
    assert nats.shape == (5,)
    for image, given, wanted in zip(images, outputs, nats, strict=True):
        torch.testing.assert_close(likelihood.nats(image[None], given[None])[0], wanted)
    mean = likelihood.mean(outputs)
    assert mean.shape == images.shape
    assert mean.min() >= 0
    assert mean.max() <= 1


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_extreme_outputs_give_finite_nats_and_gradients(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    images = torch.tensor([[[[0.0, 1.0]]]])
    outputs = torch.tensor([1e4, -1e4]).expand(1, likelihood.outputs_per_channel, 1, 2).clone()
    outputs.requires_grad_()
    nats = likelihood.nats(images, outputs)
    nats.sum().backward()
    assert torch.isfinite(nats).all()
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()


def test_bernoulli_nats_are_the_log_likelihood_summed_over_pixels() -> None:
    logits = 4 * normal(5, 2, 3, 3)
    images = normal(5, 2, 3, 3).sigmoid().round()
    exact = -Bernoulli(logits=logits).log_prob(images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(BERNOULLI.nats(images, logits), exact)
    torch.testing.assert_close(BERNOULLI.mean(logits), Bernoulli(logits=logits).mean)
