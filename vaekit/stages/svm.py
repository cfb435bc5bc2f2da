"""The SVM on the latents of a run: fitted, measured, written."""

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vaekit.config import SvmBackendFlag, SvmConfig
from vaekit.errors import UserError, say, some_of
from vaekit.runs.baselines import PcaScores
from vaekit.runs.latents import Latents
from vaekit.runs.products import BASELINES, SVM, SVM_CONFIG, SVM_METRICS, remedy_text
from vaekit.runs.reference import reference_for
from vaekit.runs.run import Run
from vaekit.runs.svm import METRICS_VERSION, Svm, write_table
from vaekit.runs.verdict import judge_svm, lines
from vaekit.settings import write_config
from vaekit.stages.latents import extract_missing_latents
from vaekit.storage.arrays import blocks_of_rows
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import write_sealed
from vaekit.svm.backend import TITLES, choose_backend
from vaekit.svm.cluster import on_cluster
from vaekit.svm.draw import draw_rows
from vaekit.svm.fit import fit_table, weights_of_latents, with_weight
from vaekit.svm.scores import Scores, confusion, evaluate
from vaekit.svm.table import SvmTable, predict_labels, require_finite
from vaekit.training.memory import available


def fit_svm(
    run: Run,
    config: SvmConfig,
    backend: SvmBackendFlag = "auto",
    jobs: int | None = None,
    cluster: str | None = None,
) -> None:
    """Fit an SVM on a run's training latents and measure it on the test latents.

    Where the run has no latents, they are made first; cuML takes them from the GPU that made them,
    without a copy by way of the host. Writes the table, its config and its metrics into the run's
    svm/ folder. `backend`, `jobs` (None: one a core) and `cluster`, as `on_cluster` takes it, say
    how it is fitted; the SVM is the same.
    Of more latents than `config` says a draw is fitted on, and so are the simpler classifiers.
    Raises `UserError` where latents are damaged, unlabelled, not finite, of one class only, or of
    more classes than fit into memory, where cuML is demanded but not usable, and where a cluster
    doesn't answer.
    """
    folder, run_config = run.folder, run.config
    choice = choose_backend(backend, cluster)
    with on_cluster(cluster), folder.lock():
        on_device = extract_missing_latents(run, keep_on_device=choice.backend == "cuml")
        latents = run.latents
        train_labels, test_labels = _require_labels(latents, run)
        require_finite(latents.test, "test latents")  # before the fit, which takes a while
        drawn = draw_rows(train_labels, config.max_train)
        fitted_labels = train_labels[drawn]
        _require_memory(fitted_labels)
        components = principal_components(run, latents)
        num_train, num_features = len(fitted_labels), latents.train.shape[1]
        config = with_weight(config, num_train)
        weights = weights_of_latents(config, num_features)
        of_all = "" if num_train == len(train_labels) else f" of {len(train_labels):,}"
        print(
            f"fitting an RBF SVM on {num_train:,}{of_all} x {num_features} latents of "
            f"{len(latents.class_names)} classes with {TITLES[choice.backend]} ({choice.reason})",
            flush=True,
        )
        if of_all:
            print(f"every class has its share of the {num_train:,}; --max_train sets how many")
        kept = None if on_device is None else on_device[drawn]
        start = time.perf_counter()
        table = fit_table(
            latents.train[drawn], fitted_labels, config, choice.backend, jobs, kept, weights
        )
        seconds = time.perf_counter() - start
        print(f"{len(table.support_vectors):,} support vectors in {seconds:.1f} s", flush=True)

        scores = _measured(table, latents.test, test_labels, latents.class_names)
        majority = commonest_class(train_labels, test_labels, latents.class_names)
        pca = []
        for count, scores_of in components.items():
            print(f"fitting the same SVM on {count} principal components", flush=True)
            simpler = fit_table(scores_of.train[drawn], fitted_labels, config, choice.backend, jobs)
            found = _measured(simpler, scores_of.test, test_labels, latents.class_names)
            pca.append({"components": count, **_both(found)})
        reference = reference_for(run_config)
        svm = Svm(
            table, latents.class_names, latents.model_sha256, latents.sha256, config.class_weight
        )
        write_table(SVM.path(folder), svm)
        write_config(SVM_CONFIG.path(folder), config)
        metrics = {
            "format_version": METRICS_VERSION,
            **scores._asdict(),
            "per_class": [each._asdict() for each in scores.per_class],
            "confusion_matrix": scores.confusion_matrix.tolist(),
            "baselines": {"majority": majority, "pca": pca},
            "reference": None if reference is None else reference._asdict(),
            "backend": TITLES[choice.backend],
            "num_train": num_train,
            "num_to_draw_from": len(train_labels),
            "num_test": len(latents.test),
            "num_support_vectors": len(table.support_vectors),
            "seconds": seconds,
            "C": config.C,
            "gamma": config.gamma,
            "log_variances": config.log_variances,
            "class_weight": config.class_weight,
            "max_train": config.max_train,
            "model_sha256": latents.model_sha256,
            "latents_sha256": latents.sha256,
            "svm_sha256": file_sha256(SVM.path(folder)),
        }
        write_sealed(SVM_METRICS.path(folder), metrics)
        run.forget("svm", "svm_metrics")
    beside = "" if reference is None else f" (the reference: {reference.accuracy:.4f})"
    print(
        f"on {len(latents.test):,} test images: accuracy {scores.accuracy:.4f}{beside}, "
        f"precision {scores.precision:.4f}, recall {scores.recall:.4f}, F1 {scores.f1:.4f}, "
        f"balanced accuracy {scores.balanced_accuracy:.4f}",
        flush=True,
    )
    if run.reading is not None and run.reading.num_test_in_train:
        overlap = f"{run.reading.num_test_in_train:,} of {run.reading.num_test:,}"
        print(f"{overlap} test images equal a training image: that is no measure of new ones")
    if unseen := [each.name for each in scores.per_class if not each.support]:
        print(f"no test images of {some_of(unseen)}", flush=True)
    for line in lines([judge_svm(metrics)]):
        print(line, flush=True)
    if not components:
        say(f"note: no PCA to compare with yet; `vaekit report {folder.quoted}` makes it")
    print(f"SVM: {folder.svm}   next: vaekit report {folder.quoted}", flush=True)


def principal_components(run: Run, latents: Latents) -> dict[int, PcaScores]:
    """Those of the images of `latents`, by their number; none before they were measured."""
    if run.baselines is None or run.pca_scores is None:
        return {}
    train, test = run.pca_scores
    if (len(train), len(test)) != (len(latents.train), len(latents.test)):
        raise UserError(
            f"{run.folder.baselines}: of other images than {run.folder.latents}; "
            f"{remedy_text(BASELINES.remedy, run.folder)}"
        )
    counts = [each["components"] for each in run.baselines["pca"]]
    return {count: PcaScores(train[:, :count], test[:, :count]) for count in counts}


def commonest_class(
    train_labels: NDArray[np.int64], test_labels: NDArray[np.int64], names: tuple[str, ...]
) -> dict[str, Any]:
    """How well it does to say the commonest class of the training images of every test image."""
    commonest = np.bincount(train_labels).argmax()
    counts = np.zeros((len(names), len(names)), np.int64)
    counts[:, commonest] = np.bincount(test_labels, minlength=len(names))
    return {"name": names[commonest], **_both(evaluate(counts, names))}


def _measured(
    table: SvmTable,
    latents: NDArray[np.float32],
    labels: NDArray[np.int64],
    names: tuple[str, ...],
) -> Scores:
    """How well it tells apart `latents` [N, D] of these `labels` [N]."""
    counts = np.zeros((len(names), len(names)), np.int64)
    for block in blocks_of_rows(*latents.shape):
        counts += confusion(labels[block], predict_labels(table, latents[block]), len(names))
    return evaluate(counts, names)


def _both(scores: Scores) -> dict[str, float]:
    return {"accuracy": scores.accuracy, "balanced_accuracy": scores.balanced_accuracy}


def _require_memory(labels: NDArray[np.int64]) -> None:
    """Raise `UserError` where the weights of all pairs, while they are put together, don't fit."""
    num_classes = len(np.unique(labels))
    needed = 2 * (num_classes - 1) * len(labels) * np.dtype(np.float64).itemsize
    free = available(torch.device("cpu"))
    if needed > free:
        raise UserError(
            f"an SVM of {num_classes:,} classes and {len(labels):,} training images takes up to "
            f"{needed / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free; train on fewer "
            f"classes or images"
        )


def _require_labels(latents: Latents, run: Run) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if latents.train_labels is None or latents.test_labels is None:
        raise UserError(
            f"{run.folder.latents}: latents of images without labels; an SVM needs labels, as "
            f"folders ROOT/CLASS/... or arrays of labels give them; without them there are "
            f"`vaekit report` and `vaekit encode`"
        )
    return latents.train_labels, latents.test_labels
