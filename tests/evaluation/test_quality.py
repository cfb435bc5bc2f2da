"""Figures of reconstructions, latents and maps are those of their papers."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vaekit.evaluation.quality import active_dimensions, kl_of_dimensions, ssim, trust_in

GENERATOR = np.random.default_rng(0)


def ssim_by_hand(x: np.ndarray, y: np.ndarray) -> float:
    """The formula of the paper, window by window, of images [H, W] in [0, 1]."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (each[top : top + 11, left : left + 11] for each in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + 0.01**2)
                * (2 * covariance + 0.03**2)
                / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2))
            )
    return float(np.mean(values))


def test_ssim_is_that_of_the_formula() -> None:
    x = GENERATOR.random((2, 3, 13, 12)).astype(np.float32)
    y = np.clip(x + 0.2 * GENERATOR.normal(size=x.shape), 0, 1).astype(np.float32)
    by_channel = [[ssim_by_hand(x[i, c], y[i, c]) for c in range(3)] for i in range(2)]
    expected = np.mean(by_channel, axis=1)
    np.testing.assert_allclose(ssim(x, y), expected, rtol=1e-6)


def test_ssim_of_equal_images_is_one_and_of_small_ones_there_is_none() -> None:
    x = GENERATOR.random((2, 1, 11, 20)).astype(np.float32)
    np.testing.assert_allclose(ssim(x, x), 1)
    assert ssim(x[:, :, :10], x[:, :, :10]) is None


def test_the_kl_of_a_dimension_is_that_of_pytorch() -> None:
    latents = GENERATOR.normal(size=(40, 6)).astype(np.float32)
    mean, log_variance = torch.from_numpy(latents).split(3, dim=1)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).mean(dim=0)
    np.testing.assert_allclose(kl_of_dimensions(latents), expected, rtol=1e-5)


def test_a_dimension_whose_mean_stays_is_not_active() -> None:
    latents = GENERATOR.normal(size=(500, 4)).astype(np.float32)
    latents[:, 1] *= 0.05
    assert active_dimensions(latents).tolist() == [True, False]


def test_a_map_that_keeps_neighbours_is_trusted_and_one_by_chance_is_not() -> None:
    features = GENERATOR.normal(size=(2500, 2)).astype(np.float32)
    assert trust_in(2 * features, features) == 1
    by_chance = trust_in(GENERATOR.normal(size=(2500, 2)).astype(np.float32), features)
    assert by_chance == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("count", "is_known"), [(0, False), (2, False), (3, True), (4, True)])
def test_a_map_of_hardly_any_points_is_no_reason_to_fail(count: int, is_known: bool) -> None:
    points = GENERATOR.normal(size=(count, 2)).astype(np.float32)
    assert (trust_in(points, points) is not None) == is_known
