"""Each likelihood keeps its promises, against torch.distributions and sums over all levels."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

from vaekit.models.likelihoods import LIKELIHOODS, bits_per_dimension

BERNOULLI, GAUSSIAN, LOGISTIC = (
    LIKELIHOODS[name] for name in ("bernoulli", "gaussian", "logistic")
)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def scale_of(name: str) -> Tensor | None:
    initial = LIKELIHOODS[name].initial_log_scale
    return None if initial is None else torch.full((1,), initial, requires_grad=True)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_likelihood_gives_nats_per_image_and_means_in_0_to_1(name: str) -> None:
    likelihood, log_scale = LIKELIHOODS[name], scale_of(name)
    images = normal(5, 2, 4, 3).sigmoid()
    outputs = 4 * normal(5, 2, 4, 3)
    nats = likelihood.nats(images, outputs, log_scale)
    assert nats.shape == (5,)
    for image, given, wanted in zip(images, outputs, nats, strict=True):
        torch.testing.assert_close(likelihood.nats(image[None], given[None], log_scale)[0], wanted)
    mean = likelihood.mean(outputs)
    assert mean.shape == images.shape
    assert mean.min() >= 0
    assert mean.max() <= 1


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("log_scale", [None, -80.0, 30.0])
def test_extreme_outputs_and_scales_give_finite_nats_and_gradients(
    name: str, log_scale: float | None
) -> None:
    scale = scale_of(name)
    if scale is not None and log_scale is not None:
        scale = torch.full((1,), log_scale, requires_grad=True)
    images = torch.tensor([[[[0.0, 1.0, 0.5]]]])
    outputs = torch.tensor([[[[1e4, -1e4, 0.5]]]], requires_grad=True)
    nats = LIKELIHOODS[name].nats(images, outputs, scale)
    nats.sum().backward()
    assert torch.isfinite(nats).all()
    for tensor in (outputs, scale):
        assert tensor is None or (tensor.grad is not None and torch.isfinite(tensor.grad).all())


def test_bernoulli_nats_are_the_log_likelihood_summed_over_pixels() -> None:
    logits = 4 * normal(5, 2, 3, 3)
    images = normal(5, 2, 3, 3).sigmoid().round()
    exact = -Bernoulli(logits=logits).log_prob(images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(BERNOULLI.nats(images, logits, None), exact)
    torch.testing.assert_close(BERNOULLI.mean(logits), Bernoulli(logits=logits).mean)


def test_gaussian_nats_are_the_log_density_summed_over_pixels() -> None:
    means, log_scale = normal(5, 2, 3, 3), torch.tensor([-1.3])
    images = normal(5, 2, 3, 3).sigmoid()
    exact = -Normal(means, log_scale.exp()).log_prob(images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(GAUSSIAN.nats(images, means, log_scale), exact)


@pytest.mark.parametrize("log_scale", [-6.0, -3.0, 0.0])
def test_the_logistic_probabilities_of_all_levels_sum_to_1(log_scale: float) -> None:
    levels = (torch.arange(256.0) / 255)[:, None, None, None]
    for mean in (-0.2, 0.0, 0.37, 1.0):
        nats = LOGISTIC.nats(levels, torch.full_like(levels, mean), torch.tensor([log_scale]))
        assert math.isclose(torch.exp(-nats).sum().item(), 1, rel_tol=1e-4)


def test_levels_at_random_take_8_bits() -> None:
    nats = 3 * math.log(256)
    assert math.isclose(bits_per_dimension(nats, num_values=3), 8)
