"""The binary problems, fitted one by one, give the SVM that scikit-learn fits on all classes."""

from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
import pytest
from cuml_helpers import DeviceSVC, play_cuml
from joblib.parallel import ThreadingBackend
from numpy.typing import NDArray
from sklearn.svm import SVC

from vaekit.svm import one_vs_one
from vaekit.svm.one_vs_one import OneVsOne, fit_one_vs_one

C, GAMMA = 10.0, 0.05


def clouds(*sizes: int) -> list[NDArray[np.float64]]:
    """A cloud of so many points in 4 dimensions for each class; they overlap."""
    generator = np.random.default_rng(0)
    return [generator.normal(generator.normal(size=4), 1.5, (size, 4)) for size in sizes]


def balanced(*sizes: int) -> list[float]:
    """The weights that scikit-learn's user guide gives for class_weight='balanced'."""
    return [sum(sizes) / (len(sizes) * size) for size in sizes]


def fit_scikit_learn(
    of_class: Sequence[NDArray[np.float64]], class_weight: str | None = None
) -> SVC:
    """One SVC on all rows, those of the classes mixed as in a set of images."""
    generator = np.random.default_rng(1)
    labels = generator.permutation(
        np.repeat(np.arange(len(of_class)), [len(rows) for rows in of_class])
    )
    features = np.empty((len(labels), 4))
    for label, rows in enumerate(of_class):
        features[labels == label] = rows
    svc = SVC(C=C, gamma=GAMMA, class_weight=class_weight, decision_function_shape="ovo")
    return svc.fit(features, labels)


def assert_same_bits(machine: OneVsOne, expected: OneVsOne) -> None:
    for name, array in expected._asdict().items():
        np.testing.assert_array_equal(getattr(machine, name), array, err_msg=name, strict=True)


@pytest.fixture
def pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have few rows be fitted as many are."""
    monkeypatch.setattr(one_vs_one, "MIN_ROWS_OF_A_PAIR", 0)


@pytest.mark.parametrize("is_balanced", [False, True])
@pytest.mark.parametrize("sizes", [(60, 50), (40, 60, 50), (300, 5, 40, 2), (30,) * 10])
@pytest.mark.parametrize("rows_of_a_pair", [0, one_vs_one.MIN_ROWS_OF_A_PAIR])
def test_the_machine_is_the_one_that_scikit_learn_fits_on_all_classes(
    rows_of_a_pair: int,
    sizes: tuple[int, ...],
    is_balanced: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(one_vs_one, "MIN_ROWS_OF_A_PAIR", rows_of_a_pair)
    of_class = clouds(*sizes)
    svc = fit_scikit_learn(of_class, "balanced" if is_balanced else None)

    weights = balanced(*sizes) if is_balanced else None
    machine = fit_one_vs_one(of_class, C, GAMMA, class_weights=weights)

    assert len(machine.support_vectors) < sum(sizes)  # else it is no question which they are
    np.testing.assert_array_equal(machine.num_support, svc.n_support_)
    np.testing.assert_array_equal(machine.support_vectors, svc.support_vectors_)
    np.testing.assert_allclose(machine.dual_coefficients, svc.dual_coef_, atol=1e-9)
    np.testing.assert_allclose(machine.intercepts, svc.intercept_, atol=1e-9)


@pytest.mark.usefixtures("pair_by_pair")
def test_the_number_of_jobs_changes_no_bit() -> None:
    of_class = clouds(40, 60, 50, 30)
    alone = fit_one_vs_one(of_class, C, GAMMA, jobs=1)
    assert_same_bits(fit_one_vs_one(of_class, C, GAMMA, jobs=2), alone)
    assert_same_bits(fit_one_vs_one(of_class, C, GAMMA), alone)


class Cluster(ThreadingBackend):  # type: ignore[misc]
    """A joblib backend that can't be counted before it is up, as Ray's."""

    num_workers = 0

    def configure(self, n_jobs: int = 1, parallel: Any = None, **settings: Any) -> int:
        Cluster.num_workers = 3
        return int(super().configure(self.num_workers, parallel, **settings))

    def effective_n_jobs(self, n_jobs: int) -> int:
        assert self.num_workers, "asked before it was configured"
        return self.num_workers


@pytest.mark.usefixtures("pair_by_pair")
def test_a_callers_joblib_backend_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    of_class = clouds(40, 60, 50, 30)
    expected = fit_one_vs_one(of_class, C, GAMMA, jobs=1)
    monkeypatch.setattr(Cluster, "num_workers", 0)
    joblib.register_parallel_backend("cluster", Cluster)
    with joblib.parallel_config("cluster"):
        machine = fit_one_vs_one(of_class, C, GAMMA)
    assert Cluster.num_workers == 3
    assert_same_bits(machine, expected)


@pytest.mark.usefixtures("pair_by_pair")
@pytest.mark.parametrize(("jobs", "of_each"), [(1, 600), (4, 150), (7, 100)])
def test_all_jobs_together_keep_to_one_kernel_cache(
    jobs: int, of_each: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def svc(**settings: Any) -> SVC:
        sizes.append(settings["cache_size"])
        return SVC(**settings)

    monkeypatch.setattr(one_vs_one, "KERNEL_CACHE_MB", 600)
    monkeypatch.setattr(one_vs_one, "SVC", svc)
    fit_one_vs_one(clouds(10, 10, 10, 10), C, GAMMA, jobs=jobs)  # 6 pairs
    assert sizes == [of_each] * 6


@pytest.mark.usefixtures("pair_by_pair")
def test_the_longest_problems_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Recorder(SVC):  # type: ignore[misc]
        def fit(self, features: NDArray[np.float64], labels: NDArray[np.int64]) -> SVC:
            sizes.append(len(labels))
            return super().fit(features, labels)

    monkeypatch.setattr(one_vs_one, "SVC", Recorder)
    fit_one_vs_one(clouds(10, 40, 20), C, GAMMA, jobs=1)
    assert sizes == [60, 50, 30]


@pytest.mark.parametrize("is_balanced", [False, True])
@pytest.mark.parametrize("sizes", [(60, 50), (40, 60, 5, 50)])
def test_what_cuml_found_is_read_as_the_machine_of_scikit_learn(
    sizes: tuple[int, ...], is_balanced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = balanced(*sizes) if is_balanced else None
    of_class = [rows.astype(np.float32).astype(np.float64) for rows in clouds(*sizes)]
    play_cuml(monkeypatch)
    monkeypatch.setattr(DeviceSVC, "num_fits", 0)

    machine = fit_one_vs_one(of_class, C, GAMMA, backend="cuml", class_weights=weights)

    assert DeviceSVC.num_fits == len(machine.intercepts)
    expected = fit_one_vs_one(of_class, C, GAMMA, class_weights=weights)
    np.testing.assert_array_equal(machine.num_support, expected.num_support)
    np.testing.assert_array_equal(machine.support_vectors, expected.support_vectors)
    np.testing.assert_allclose(machine.dual_coefficients, expected.dual_coefficients, atol=1e-5)
    np.testing.assert_allclose(machine.intercepts, expected.intercepts, atol=1e-5)
    assert {array.dtype for array in machine} == {np.dtype(np.float64), np.dtype(np.int64)}
