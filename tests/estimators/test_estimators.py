"""vaekit's estimators keep every convention of scikit-learn, and what they learn is vaekit's."""

import random
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import vaekit
from vaekit.errors import UserError
from vaekit.images.digits import read_digits
from vaekit.svm.draw import draw_rows
from vaekit.training import step

TINY: dict[str, Any] = {"latent_dim": 2, "width": 1, "epochs": 1, "batch_size": 32}
OURS = [
    "vaekit.estimators.vae.VAETransformer",
    "vaekit.estimators.svc.LatentSVC",
    "vaekit.svm.table.SvmTable",
]


def expected_failures(estimator: Any) -> dict[str, str]:
    """By the name of the check, the reason."""
    if isinstance(estimator, vaekit.LatentSVC):
        return {"check_class_weight_classifiers": "weights are balanced or none, not one a class"}
    return {}


@parametrize_with_checks(
    [vaekit.VAETransformer(**TINY), vaekit.LatentSVC(n_jobs=1)],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_finds_nothing_to_object_to(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    """Rows of 8x8 pixels, uint8, and their labels."""
    pixels, labels, _ = read_digits((8, 8))
    return pixels[:240].reshape(240, -1), labels[:240]


@pytest.fixture(scope="module")
def fitted(digits: tuple[Any, Any]) -> vaekit.VAETransformer:
    estimator = vaekit.VAETransformer(
        latent_dim=3, width=4, epochs=12, learning_rate=5e-3, random_state=0
    )
    return estimator.fit(digits[0])


def test_latents_are_those_of_the_model_and_lead_back_to_the_images(
    fitted: vaekit.VAETransformer, digits: tuple[Any, Any]
) -> None:
    X = digits[0]
    config = vaekit.ModelConfig("conv", latent_dim=3, width=4, block_bottleneck=False)
    vae = vaekit.VAE(config, (1, 8, 8))
    vae.load_state_dict({name: torch.tensor(it) for name, it in fitted.weights_.items()})
    posterior = vae.encode(torch.from_numpy(X.reshape(-1, 1, 8, 8) / np.float32(255)))
    z = fitted.transform(X)
    np.testing.assert_allclose(z, posterior.mean.detach(), atol=1e-4)
    both = clone(fitted).set_params(log_variances=True)
    both.__dict__ |= {name: it for name, it in vars(fitted).items() if name.endswith("_")}
    np.testing.assert_allclose(both.transform(X)[:, 3:], posterior.log_variance.detach(), atol=1e-4)
    assert [*both.get_feature_names_out()] == [
        *("z1", "z2", "z3"),
        *("z1_log_variance", "z2_log_variance", "z3_log_variance"),
    ]
    again = fitted.inverse_transform(z)
    assert again.shape == X.shape
    error = np.square(again - X).mean()
    assert error < 0.8 * np.square(X.mean(axis=0) - X).mean()


def test_a_score_is_the_bound_in_nats(
    fitted: vaekit.VAETransformer, digits: tuple[Any, Any]
) -> None:
    """By way of torch.distributions."""
    X = digits[0][:50]
    images = torch.from_numpy(X.reshape(-1, 1, 8, 8)).double() / 255
    vae = fitted._model()
    noise = torch.randn(8, 1, 3, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        mean, log_variance = vae.encode(images)
        posterior = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
        prior = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
        kl = torch.distributions.kl_divergence(posterior, prior).sum(dim=1)
        nats = [
            torch.nn.functional.binary_cross_entropy(
                vae.decode(mean + posterior.stddev * sample).double(), images, reduction="none"
            ).sum(dim=(1, 2, 3))
            for sample in noise
        ]
    expected = -(torch.stack(nats).mean(dim=0) + kl)
    np.testing.assert_allclose(fitted.score_samples(X), expected, rtol=1e-5)
    assert fitted.score(X) == pytest.approx(float(expected.mean()), rel=1e-5)
    strange = np.random.default_rng(0).integers(0, 256, X.shape, np.uint8)
    assert fitted.score(X) > fitted.score(strange)


def test_the_svm_is_that_of_scikit_learn(digits: tuple[Any, Any]) -> None:
    X, names = digits[0][:, ::5], np.array([f"digit {label}" for label in digits[1]])
    assert not X[:, 0].any()  # scikit-learn's gamma doesn't count what never varies, nor does ours
    found = vaekit.LatentSVC().fit(X, names)
    expected = make_pipeline(StandardScaler(), SVC(C=10, gamma="scale", break_ties=True))
    expected.fit(X, names)
    assert found.predict(X).tolist() == expected.predict(X).tolist()
    np.testing.assert_allclose(found.decision_function(X), expected.decision_function(X), atol=1e-3)


def test_a_draw_is_fitted_where_that_is_asked_for(digits: tuple[Any, Any]) -> None:
    X, y = digits[0][:, ::5], digits[1]
    drawn = draw_rows(y, 60)
    found = vaekit.LatentSVC(max_train=60).fit(X, y).decision_function(X)
    expected = vaekit.LatentSVC().fit(X[drawn], y[drawn]).decision_function(X)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_a_search_over_a_pipeline_finds_its_best_and_is_saved_without_a_pickle(
    digits: tuple[Any, Any], tmp_path: Path
) -> None:
    X, y = digits
    pipeline = make_pipeline(
        vaekit.VAETransformer(
            width=2, epochs=8, learning_rate=5e-3, log_variances=True, random_state=0
        ),
        vaekit.LatentSVC(n_jobs=1),
    )
    search = GridSearchCV(
        pipeline, {"vaetransformer__latent_dim": [1, 4]}, cv=2, error_score="raise"
    ).fit(X, y)
    assert search.best_params_ == {"vaetransformer__latent_dim": 4}
    assert search.best_score_ > 0.3
    best = search.best_estimator_
    import skops.io  # which imports all of scikit-learn

    skops.io.dump(best, tmp_path / "pipeline.skops")
    assert skops.io.get_untrusted_types(file=tmp_path / "pipeline.skops") == sorted(OURS)
    again = skops.io.load(tmp_path / "pipeline.skops", trusted=OURS)
    assert again.predict(X).tolist() == best.predict(X).tolist()


def test_latents_come_as_a_data_frame_where_that_is_asked_for(
    fitted: vaekit.VAETransformer, digits: tuple[Any, Any]
) -> None:
    framed = clone(fitted).set_params(epochs=1).set_output(transform="pandas")
    frame = framed.fit_transform(digits[0])
    assert [*frame] == ["z1", "z2", "z3"]


def test_a_row_of_a_colour_image_is_in_the_order_of_its_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 10, 3), np.uint8)
    X = images.reshape(32, -1)
    estimator = vaekit.VAETransformer((8, 10, 3), **TINY, random_state=0).fit(X)
    assert estimator.image_shape_ == (3, 8, 10)
    vae = estimator._model()
    with torch.no_grad():
        mean, _ = vae.encode(torch.from_numpy(images.transpose(0, 3, 1, 2) / 255))
        expected = 255 * vae.decode(mean.double()).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(estimator.transform(X), mean, rtol=1e-5, atol=1e-6)
    again = estimator.inverse_transform(mean.numpy()).reshape(images.shape)
    np.testing.assert_allclose(again, expected, rtol=1e-4)


@pytest.mark.parametrize(("image_shape", "are_augmented"), [(None, False), ((4, 4), True)])
def test_rows_are_augmented_only_where_they_are_said_to_be_images(
    image_shape: tuple[int, ...] | None, are_augmented: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table may have as many columns as a square has pixels."""
    seen = []
    monkeypatch.setattr(
        step, "augmented_in_part", lambda images, draws: seen.append(images) or images
    )
    rows = np.random.default_rng(0).uniform(size=(64, 16))
    vaekit.VAETransformer(image_shape, likelihood="gaussian", **TINY).fit(rows)
    assert bool(seen) is are_augmented


def test_training_changes_nothing_of_its_process(
    digits: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)

    def state() -> Any:
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),  # type: ignore[index]
            torch.get_num_threads(),
            torch.backends.cudnn.deterministic,
            torch.is_grad_enabled(),
            [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)],
            threading.active_count(),
            AcceleratorState._shared_state,
            [*tmp_path.iterdir()],
        )

    before = state()
    vaekit.VAETransformer(**TINY, random_state=0).fit(digits[0]).score(digits[0])
    assert state() == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_shape": (8, 9)}, r"image_shape \(8, 9\): expected .* of 64 values"),
        ({"value_range": (1, 1)}, "with low below high"),
        ({"latent_dim": 0}, "model.latent_dim 0: expected at least 1"),
    ],
)
def test_settings_are_looked_at_in_fit(
    digits: tuple[Any, Any], in_python: None, settings: dict[str, Any], words: str
) -> None:
    estimator = vaekit.VAETransformer(**settings)
    with pytest.raises(UserError, match=words):
        estimator.fit(digits[0])
