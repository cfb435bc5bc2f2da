"""Fitting the SVM, from latents to what labels other latents."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from bench.interleaved import Contest
from vaekit.config import SvmBackend, SvmConfig
from vaekit.latents import read_latents
from vaekit.run_folder import RunFolder
from vaekit.svm import SvmTable, fit_table, predict
from vaekit.svm_backend import choose_backend

Compete = Callable[[Contest], None]

NUM_CLASSES = 10
NUM_FEATURES = 20
NUM_TRAIN, NUM_TEST = 40_000, 1000
FEW = 500  # where nothing is timed
ROUNDS = 3
KERNEL_CACHE_MB = 1000  # vaekit's; scikit-learn is faster with it than with its own 200
MIN_AGREEMENT = 0.99  # of labels: SVC breaks a tie in another way, and there are some

all_threads = pytest.mark.parametrize(
    "threads", [torch.get_num_threads()], indirect=True, ids="threads={}".format
)


class Task(NamedTuple):
    latents: NDArray[np.float32]  # [N, D]
    labels: NDArray[np.int64]  # [N]
    test: NDArray[np.float32]  # [M, D], to compare labels on


@pytest.fixture(scope="module")
def task(pytestconfig: pytest.Config) -> Task:
    run = pytestconfig.getoption("run")
    if run is not None:
        latents = read_latents(RunFolder(run))
        assert latents.train_labels is not None
        return Task(latents.train, latents.train_labels, latents.test)
    return _make_up(FEW if pytestconfig.getoption("benchmark_disable") else NUM_TRAIN)


def test_fit_against_scikit_learn(compete: Compete, threads: int, task: Task) -> None:
    cores = "one core" if threads == 1 else "all cores"
    compete(_contest(task, f"SVM fit, {cores}", "scikit-learn", SVC, jobs=threads))


@all_threads
def test_fit_against_scikit_learn_intelex(compete: Compete, threads: int, task: Task) -> None:
    """It takes as many cores as there are."""
    sklearnex_svm = pytest.importorskip("sklearnex.svm", reason="no scikit-learn-intelex here")
    contest = _contest(
        task, "SVM fit, all cores", "scikit-learn-intelex", sklearnex_svm.SVC, jobs=threads
    )
    compete(contest)


@all_threads
def test_fit_with_cuml(compete: Compete, task: Task) -> None:
    choice = choose_backend("auto")
    if choice.backend != "cuml":
        pytest.skip(choice.reason)
    compete(_contest(task, "SVM fit", "scikit-learn", SVC, jobs=1, backend="cuml"))


def _contest(
    task: Task, work: str, peer: str, svc: Any, jobs: int, backend: SvmBackend = "sklearn"
) -> Contest:
    config = SvmConfig()

    def fit_as_theirs() -> Pipeline:
        gamma = config.gamma / task.latents.shape[1]
        model = svc(C=config.C, gamma=gamma, cache_size=KERNEL_CACHE_MB)
        pipeline = make_pipeline(StandardScaler(), model)
        return pipeline.fit(task.latents.astype(np.float64), task.labels)

    def agree(ours: SvmTable, theirs: Pipeline) -> None:
        labels, their_labels = predict(ours, task.test).labels, theirs.predict(task.test)
        assert np.mean(labels == their_labels) >= MIN_AGREEMENT

    num_latents, num_features = task.latents.shape
    return Contest(
        work=work,
        ours=lambda: fit_table(task.latents, task.labels, config, backend, jobs),
        peer=peer,
        theirs=fit_as_theirs,
        agree=agree,
        rounds=ROUNDS,
        note=f"{num_latents:,} x {num_features}",
        device="cuda" if backend == "cuml" else "cpu",
    )


def _make_up(num_train: int) -> Task:
    """Ten clouds of points, so close that some 6,000 become support vectors, as for MNIST.

    The more points, the more it tells that those of a pair of classes lie side by side.
    """
    generator = np.random.default_rng(0)
    centres = generator.normal(scale=0.9, size=(NUM_CLASSES, NUM_FEATURES))
    labels = generator.integers(0, NUM_CLASSES, num_train + NUM_TEST)
    points = centres[labels] + generator.normal(size=(len(labels), NUM_FEATURES))
    latents = points.astype(np.float32)
    return Task(latents[:num_train], labels[:num_train], latents[num_train:])
