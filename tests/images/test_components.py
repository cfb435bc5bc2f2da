"""The mean image and principal components are those of scikit-learn and of closed forms."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch.nn.functional import binary_cross_entropy

from vaekit.images import baselines
from vaekit.images.baselines import bernoulli_nats, fit_components, mean_of, project, squared_errors


def digits() -> NDArray[np.uint8]:
    pixels, _ = load_digits(return_X_y=True)
    return (pixels * 15).astype(np.uint8).reshape(-1, 1, 8, 8)


def test_the_errors_by_number_of_components_are_those_of_scikit_learns_reconstructions() -> None:
    train, test = digits()[:1200], digits()[1200:]
    components = fit_components(train, 12)
    scores = project(test, components)
    errors = squared_errors(test, scores, components)

    rows = test.reshape(len(test), -1) / 255
    for count in (1, 6, 12):
        oracle = PCA(count, svd_solver="full").fit(train.reshape(len(train), -1) / 255)
        left = rows - oracle.inverse_transform(oracle.transform(rows))
        assert errors[count] == pytest.approx(np.square(left).sum(), rel=1e-3)
    mean = train.reshape(len(train), -1).mean(axis=0) / 255
    assert errors[0] == pytest.approx(np.square(rows - mean).sum(), rel=1e-5)
    np.testing.assert_allclose(mean_of(train), mean, rtol=1e-12)
    assert scores.dtype == np.float32


def test_the_nats_of_the_mean_image_are_its_cross_entropy_with_each_image() -> None:
    train, test = digits()[:1200], digits()[1200:]
    on = (train.reshape(1200, -1).sum(axis=0) / 255 + 0.5) / 1201
    images = torch.from_numpy(test.reshape(len(test), -1) / 255)
    means = torch.from_numpy(on).expand_as(images)
    expected = binary_cross_entropy(means, images, reduction="none").sum(dim=1).mean()
    assert bernoulli_nats(mean_of(train), 1200, mean_of(test)) == pytest.approx(float(expected))


def test_a_large_set_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_FITTED", 64 * 300)
    pixels = digits()[:1200]
    components = fit_components(pixels, 5)
    assert components.num_fitted == 300
    every_fourth = PCA(5).fit(pixels[::4].reshape(300, -1) / 255)
    np.testing.assert_allclose(components.mean, every_fourth.mean_, atol=1e-5)
    np.testing.assert_allclose(
        np.abs(components.directions @ every_fourth.components_.T), np.eye(5), atol=1e-3
    )


@pytest.mark.parametrize("count", [1, 2, 40])
def test_images_that_are_all_alike_have_no_components(count: int) -> None:
    pixels = np.full((count, 3, 4, 5), 7, np.uint8)
    components = fit_components(pixels, 10)
    scores = project(pixels, components)
    assert scores.shape == (count, 0)
    assert squared_errors(pixels, scores, components).tolist() == [0]


def test_there_are_no_more_components_than_images_or_pixels() -> None:
    assert len(fit_components(digits()[:7], 20).directions) == 7
    assert len(fit_components(digits()[:100], 200).directions) == 64
