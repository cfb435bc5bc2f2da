"""Fitting the SVM, from latents to what labels other latents."""

import importlib
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from bench.conftest import Compete, all_threads
from bench.interleaved import Contest
from bench.made_up import clouds
from vaekit.config import SvmBackend, SvmConfig
from vaekit.runs.run import Run
from vaekit.svm.backend import choose_backend
from vaekit.svm.fit import fit_table
from vaekit.svm.one_vs_one import KERNEL_CACHE_MB
from vaekit.svm.table import SvmTable, predict

NUM_TRAIN, NUM_TEST = 40_000, 2000
MAX_VOTES = 10**8  # of pairs of classes on latents to compare labels on, which takes seconds
FEW = 500  # where nothing is timed
ROUNDS = 3
ROUNDS_OF_PREDICTING = 6
MIN_AGREEMENT = 0.95  # of labels


class Task(NamedTuple):
    latents: NDArray[np.float32]  # [N, D]
    labels: NDArray[np.int64]  # [N]
    test: NDArray[np.float32]  # [M, D], to compare labels on


@pytest.fixture(scope="module")
def task(pytestconfig: pytest.Config, is_quick: bool) -> Task:
    run = pytestconfig.getoption("run")
    if run is not None:
        latents = Run(run).latents
        assert latents.train_labels is not None
        return Task(latents.train, latents.train_labels, latents.test)
    num_train = FEW if is_quick else NUM_TRAIN
    latents, labels = clouds(num_train + NUM_TEST)
    return Task(latents[:num_train], labels[:num_train], latents[num_train:])


def test_fit_against_scikit_learn(compete: Compete, threads: int, task: Task) -> None:
    cores = "one core" if threads == 1 else "all cores"
    compete(_contest(task, f"SVM fit, {cores}", "scikit-learn", SVC, jobs=threads))


@all_threads
@pytest.mark.parametrize(("num_classes", "of_each"), [(2, 2000), (26, 150), (100, 5), (1000, 5)])
def test_fit_of_few_and_of_many_classes(
    compete: Compete, threads: int, num_classes: int, of_each: int, is_quick: bool
) -> None:
    """Many pairs of few images, and one pair alone, are soonest done on one thread."""
    work = f"SVM fit, {num_classes} classes of {of_each}"
    if is_quick:
        num_classes = min(num_classes, 20)
    num_train = num_classes * of_each
    num_test = min(NUM_TEST, MAX_VOTES // num_classes**2)
    latents, labels = clouds(num_train + num_test, num_classes)
    task = Task(latents[:num_train], labels[:num_train], latents[num_train:])
    compete(_contest(task, work, "scikit-learn", SVC, jobs=threads))


@all_threads
def test_fit_against_scikit_learn_intelex(compete: Compete, threads: int, task: Task) -> None:
    """It takes as many cores as there are."""
    sklearnex_svm = pytest.importorskip("sklearnex.svm", reason="no scikit-learn-intelex here")
    contest = _contest(
        task, "SVM fit, all cores", "scikit-learn-intelex", sklearnex_svm.SVC, jobs=threads
    )
    compete(contest)


@all_threads
def test_fit_on_a_device_against_scikit_learn(compete: Compete, task: Task) -> None:
    _require_cuml()
    compete(_contest(task, "SVM fit", "scikit-learn", SVC, jobs=1, backend="cuml"))


@all_threads
def test_fit_on_a_device_against_cumls_own(compete: Compete, task: Task) -> None:
    """Its SVC of several classes is scikit-learn's one-vs-one of device fits."""
    _require_cuml()
    svc = importlib.import_module("cuml.svm").SVC
    compete(_contest(task, "SVM fit", "cuML SVC", svc, jobs=1, backend="cuml", dtype=np.float32))


@all_threads
def test_predict(compete: Compete, task: Task) -> None:
    config = SvmConfig()
    ours = fit_table(task.latents, task.labels, config)
    theirs = _pipeline(SVC, task, config).fit(task.latents.astype(np.float64), task.labels)

    def agree(labels: NDArray[np.int64], their_labels: NDArray[np.int64]) -> None:
        assert np.mean(labels == their_labels) >= MIN_AGREEMENT

    compete(
        Contest(
            work="SVM predict, numpy",
            ours=lambda: predict(ours, task.test).labels,
            peer="scikit-learn",
            theirs=lambda: theirs.predict(task.test),
            agree=agree,
            rounds=ROUNDS_OF_PREDICTING,
            note=f"{len(task.test):,} latents, {len(ours.support_vectors):,} support vectors",
        )
    )


def _require_cuml() -> None:
    choice = choose_backend("auto")
    if choice.backend != "cuml":
        pytest.skip(choice.reason)


def _contest(
    task: Task,
    work: str,
    peer: str,
    svc: Any,
    jobs: int,
    backend: SvmBackend = "sklearn",
    dtype: type[np.floating[Any]] = np.float64,
) -> Contest:
    """`dtype` is the one that the backend computes in, and the peer with it."""
    config = SvmConfig()

    def agree(ours: SvmTable, theirs: Pipeline) -> None:
        if "break_ties" in theirs[-1].get_params():
            theirs[-1].set_params(break_ties=True)  # as vaekit: many classes have many ties
        labels, their_labels = predict(ours, task.test).labels, theirs.predict(task.test)
        assert np.mean(labels == their_labels) >= MIN_AGREEMENT

    num_latents, num_features = task.latents.shape
    return Contest(
        work=work,
        ours=lambda: fit_table(task.latents, task.labels, config, backend, jobs),
        peer=peer,
        theirs=lambda: _pipeline(svc, task, config).fit(task.latents.astype(dtype), task.labels),
        agree=agree,
        rounds=ROUNDS,
        note=f"{num_latents:,} x {num_features}",
        device="cuda" if backend == "cuml" else "cpu",
    )


def _pipeline(svc: Any, task: Task, config: SvmConfig) -> Pipeline:
    gamma = config.gamma / task.latents.shape[1]
    # scikit-learn is faster with vaekit's cache than with its own 200 MB.
    model = svc(C=config.C, gamma=gamma, cache_size=KERNEL_CACHE_MB)
    return make_pipeline(StandardScaler(), model)
