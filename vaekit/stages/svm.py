"""The SVM on the latents: one table of arrays, what it predicts, and how well."""

import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from vaekit.config import SvmBackend, SvmBackendFlag, SvmConfig
from vaekit.errors import UserError
from vaekit.runs.folder import RunFolder, Weights
from vaekit.runs.reference import reference_for
from vaekit.settings import write_config
from vaekit.stages.latents import Latents, extract_missing_latents, read_latents
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import expected_of, number, read_sealed, strings, typed, write_sealed
from vaekit.storage.tensors import read_tensors, write_tensors
from vaekit.svm.backend import TITLES, choose_backend
from vaekit.svm.one_vs_one import fit_one_vs_one
from vaekit.svm.scores import evaluate

# Shapes in comments: B batch, D features (twice the latent dimensions), S support vectors,
# K classes, P = K(K-1)/2 pairs of classes in the order (0, 1), (0, 2) ... (1, 2) ...
FORMAT = "vaekit-svm"
FORMAT_VERSION = 1
METRICS_VERSION = 2

MAX_KERNEL_VALUES = 2**23  # 64 MiB of float64, whatever the number of images


@dataclass(frozen=True, eq=False)
class SvmTable:
    """A one-vs-one RBF SVM with the standardisation before it, as arrays (float64, int64).

    The layout is libsvm's (Chang and Lin, 2011): support vectors lie class by class; the
    coefficient of one of class i in its pair with class j is in row j - 1 where i < j, in
    row j where i > j.
    """

    feature_mean: NDArray[np.float64]  # [D]
    feature_scale: NDArray[np.float64]  # [D]
    support_vectors: NDArray[np.float64]  # [S, D], standardised
    dual_coefficients: NDArray[np.float64]  # [K-1, S]
    num_support: NDArray[np.int64]  # [K]
    intercepts: NDArray[np.float64]  # [P]
    gamma: float  # of exp(-gamma * squared distance of standardised latents)
    classes: NDArray[np.int64]  # [K], rising; indices into the class names


class Svm(NamedTuple):
    """A table with what is needed to use it, and what it was made from."""

    table: SvmTable
    class_names: tuple[str, ...]
    model_sha256: str
    latents_sha256: str


class Prediction(NamedTuple):
    """Labels, and the figures behind them as in scikit-learn's SVC.

    `decisions` are continuous; with two classes a positive one speaks for the second, with
    more a positive one speaks for the first class of its pair. `scores` are votes plus the
    squashed sum of decisions: they rank classes and are no probabilities.
    """

    labels: NDArray[np.int64]  # [B]
    scores: NDArray[np.float64]  # [B, K]
    decisions: NDArray[np.float64]  # [B, P]


def fit_svm(
    run_path: Path,
    config: SvmConfig,
    backend: SvmBackendFlag = "auto",
    jobs: int | None = None,
) -> None:
    """Fit an SVM on a run's training latents and measure it on the test latents.

    Where the run has no latents, they are made first; cuML takes them from the GPU that made them,
    without a copy by way of the host. Writes the table, its config and its metrics into the run's
    svm/ folder. `backend` and `jobs` (None: one a core) say how it is fitted; the SVM is the same.
    Raises `UserError` where latents are damaged, unlabelled, not finite, or of one class only, and
    where cuML is demanded but not usable.
    """
    run = RunFolder(run_path)
    data = run.require_config().data
    with run.lock():
        choice = choose_backend(backend)
        on_device = extract_missing_latents(run, keep_on_device=choice.backend == "cuml")
        latents = read_latents(run)
        train_labels, test_labels = _require_labels(latents, run)
        _require_finite(latents.test, "test latents")  # before the fit, which takes a while
        num_train, num_features = latents.train.shape
        print(
            f"fitting an RBF SVM on {num_train:,} x {num_features} latents of "
            f"{len(latents.class_names)} classes with {TITLES[choice.backend]} ({choice.reason})",
            flush=True,
        )
        start = time.perf_counter()
        table = fit_table(latents.train, train_labels, config, choice.backend, jobs, on_device)
        seconds = time.perf_counter() - start
        print(f"{len(table.support_vectors):,} support vectors in {seconds:.1f} s", flush=True)

        predicted = predict(table, latents.test).labels
        scores = evaluate(test_labels, predicted, latents.class_names)
        reference = reference_for(data)
        svm = Svm(table, latents.class_names, latents.model_sha256, latents.sha256)
        write_table(_table_path(run), svm)
        write_config(run.svm / "config.yaml", config)
        metrics = {
            "format_version": METRICS_VERSION,
            **scores._asdict(),
            "per_class": [each._asdict() for each in scores.per_class],
            "confusion_matrix": scores.confusion_matrix.tolist(),
            "reference": None if reference is None else reference._asdict(),
            "backend": TITLES[choice.backend],
            "num_train": num_train,
            "num_test": len(latents.test),
            "num_support_vectors": len(table.support_vectors),
            "seconds": seconds,
            "C": config.C,
            "gamma": config.gamma,
            "model_sha256": latents.model_sha256,
            "latents_sha256": latents.sha256,
            "svm_sha256": file_sha256(_table_path(run)),
        }
        write_sealed(_metrics_path(run), metrics)
    beside = "" if reference is None else f" (the reference: {reference.accuracy:.4f})"
    print(
        f"on {len(latents.test):,} test images: accuracy {scores.accuracy:.4f}{beside}, "
        f"precision {scores.precision:.4f}, recall {scores.recall:.4f}, F1 {scores.f1:.4f}",
        flush=True,
    )
    print(f"SVM: {run.svm}   next: vaekit report {run.quoted}", flush=True)


def fit_table(
    latents: NDArray[np.float32],
    labels: NDArray[np.int64],
    config: SvmConfig,
    backend: SvmBackend = "sklearn",
    jobs: int | None = None,
    on_device: Tensor | None = None,
) -> SvmTable:
    """Standardise `latents` [N, D] and fit the SVM that tells `labels` [N] apart.

    `backend` and `jobs` are those of `fit_one_vs_one`; `on_device` are the same latents where they
    lie on a GPU already, and spare cuML a copy. Raises `UserError` for latents that are
    not finite or labels of one class only.
    """
    _require_finite(latents, "training latents")
    classes = np.unique(labels)
    if len(classes) < 2:
        raise UserError(
            f"training labels: {len(classes)} class in {len(labels):,} images; an SVM needs at "
            f"least two classes; give images of another class, or a larger --data.limit"
        )
    scaler = StandardScaler().fit(latents.astype(np.float64))
    gamma = config.gamma / latents.shape[1]
    features = _standardise(latents, scaler.mean_, scaler.scale_)
    of_class = [features[labels == each] for each in classes]
    rows = None if on_device is None else _standardised_on_device(on_device, labels, scaler)
    machine = fit_one_vs_one(of_class, config.C, gamma, backend, jobs, rows)
    return SvmTable(
        feature_mean=scaler.mean_,
        feature_scale=scaler.scale_,
        **machine._asdict(),
        gamma=gamma,
        classes=classes,
    )


def predict(table: SvmTable, latents: NDArray[np.float32]) -> Prediction:
    """Classify `latents` [B, D] in float64; labels equal those of `SVC(break_ties=True)`.

    Raises `UserError` for latents that are not finite.
    """
    _require_finite(latents, "latents")
    coefficients = pair_coefficients(table)
    decisions = np.empty((len(latents), len(table.intercepts)))
    step = max(1, MAX_KERNEL_VALUES // len(table.support_vectors))
    for start in range(0, len(latents), step):
        chunk = latents[start : start + step]
        features = _standardise(chunk, table.feature_mean, table.feature_scale)
        kernel = _rbf_kernel(features, table.support_vectors, table.gamma)
        decisions[start : start + step] = kernel @ coefficients + table.intercepts
    scores = _scores(decisions, len(table.classes))
    return Prediction(table.classes[scores.argmax(axis=1)], scores, decisions)


def pair_coefficients(table: SvmTable) -> NDArray[np.float64]:
    """The weight [S, P] of each support vector in the decision of each pair of classes."""
    ends = np.cumsum(table.num_support)
    of_class = [slice(end - num, end) for end, num in zip(ends, table.num_support, strict=True)]
    weights = np.zeros((len(table.support_vectors), len(table.intercepts)))
    for pair, (i, j) in enumerate(zip(*np.triu_indices(len(table.classes), k=1), strict=True)):
        weights[of_class[i], pair] = table.dual_coefficients[j - 1, of_class[i]]
        weights[of_class[j], pair] = table.dual_coefficients[i, of_class[j]]
    return weights


def pair_signs(num_classes: int) -> NDArray[np.float64]:
    """For which class of its pair a positive decision speaks (+1) or against (-1): [P, K].

    scikit-learn turns the sign round where there are only two classes.
    """
    first, second = np.triu_indices(num_classes, k=1)
    signs = np.eye(num_classes)[first] - np.eye(num_classes)[second]
    return -signs if num_classes == 2 else signs


def write_table(path: Path, svm: Svm) -> None:
    facts = {
        "class_names": svm.class_names,
        "model_sha256": svm.model_sha256,
        "latents_sha256": svm.latents_sha256,
    }
    tensors = {
        name: torch.from_numpy(np.asarray(array, order="C"))
        for name, array in vars(svm.table).items()
    }
    write_tensors(path, tensors, facts, format_name=FORMAT, version=FORMAT_VERSION)


def read_table(path: Path) -> Svm:
    """What `write_table` wrote. Raises `UserError` where the file is damaged or of another kind."""
    remedy = "fit the SVM again"
    tensors, facts = read_tensors(path, format_name=FORMAT, version=FORMAT_VERSION, remedy=remedy)
    with expected_of(path, remedy):
        class_names = strings(facts["class_names"])
        model_sha256 = typed(facts["model_sha256"], str)
        latents_sha256 = typed(facts["latents_sha256"], str)
    fault = _fault(tensors, len(class_names))
    if fault is not None:
        raise UserError(f"{path}: {fault}; the file is damaged: {remedy}")
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    table = SvmTable(**{**arrays, "gamma": float(arrays["gamma"])})
    return Svm(table, class_names, model_sha256, latents_sha256)


def read_svm(run: RunFolder) -> Svm:
    """The SVM of a run. Raises `UserError` where there is none, or one of other weights."""
    path = _table_path(run)
    if not path.is_file():
        raise UserError(f"{path}: no SVM yet; make it with `vaekit svm {run.quoted}`")
    svm = read_table(path)
    if not run.model.is_file() or file_sha256(run.model) != svm.model_sha256:
        raise UserError(
            f"{path}: made from other weights than {run.model}; make it again with "
            f"`vaekit latents {run.quoted}` and `vaekit svm {run.quoted}`"
        )
    return svm


def require_svm_of(weights: Weights, svm: Svm, run: RunFolder) -> None:
    """Raise `UserError` where the SVM's classes or features are not those of the weights."""
    num_features = 2 * weights.vae.config.latent_dim
    if svm.class_names != weights.class_names or svm.table.feature_mean.shape != (num_features,):
        raise UserError(
            f"{_table_path(run)}: of other classes or latents than {run.model}; make it again with "
            f"`vaekit latents {run.quoted}` and `vaekit svm {run.quoted}`"
        )


def read_metrics(run: RunFolder) -> dict[str, Any]:
    """What `fit_svm` measured.

    Raises `UserError` where it measured nothing yet, or where table, latents and weights no
    longer are those that it measured.
    """
    metrics = read_measurements(run)
    if read_latents(run).sha256 != metrics.get("latents_sha256"):
        raise UserError(
            f"{_metrics_path(run)}: of other latents than those in {run.latents}; {_again(run)}"
        )
    return metrics


def read_measurements(run: RunFolder) -> dict[str, Any]:
    """`read_metrics`, whatever the state of the latents."""
    path, again = _metrics_path(run), _again(run)
    if not path.is_file():
        raise UserError(f"{path}: no SVM yet; make it with `vaekit svm {run.quoted}`")
    metrics = read_sealed(path, version=METRICS_VERSION, remedy=again)
    with expected_of(path, again):
        _require_measurements(metrics)
    table_path = _table_path(run)
    if not table_path.is_file() or file_sha256(table_path) != metrics.get("svm_sha256"):
        raise UserError(f"{path}: of another SVM than {table_path}; {again}")
    return metrics


def _table_path(run: RunFolder) -> Path:
    return run.svm / "svm.safetensors"


def _metrics_path(run: RunFolder) -> Path:
    return run.svm / "metrics.json"


def _again(run: RunFolder) -> str:
    return f"measure anew with `vaekit svm {run.quoted}`"


def _standardise(
    latents: NDArray[np.float32], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    return (latents - mean) / scale


def _standardised_on_device(
    latents: Tensor, labels: NDArray[np.int64], scaler: StandardScaler
) -> list[Tensor]:
    """The latents [N, D] of each class, in float32, the same as those standardised on the host."""
    mean, scale, of_label = (
        torch.from_numpy(each).to(latents.device) for each in (scaler.mean_, scaler.scale_, labels)
    )
    features = ((latents - mean) / scale).float()
    return [features[of_label == each] for each in of_label.unique()]


def _rbf_kernel(
    features: NDArray[np.float64], support_vectors: NDArray[np.float64], gamma: float
) -> NDArray[np.float64]:
    """exp(-gamma |x - s|^2) as [B, S], of |x|^2 - 2 x.s + |s|^2 so that a GEMM does the work."""
    kernel: NDArray[np.float64] = features @ (2 * support_vectors.T)
    kernel -= np.square(features).sum(axis=1, keepdims=True)
    kernel -= np.square(support_vectors).sum(axis=1)
    kernel *= gamma
    np.exp(kernel, out=kernel)
    return kernel


def _scores(decisions: NDArray[np.float64], num_classes: int) -> NDArray[np.float64]:
    """Votes [B, K] plus the sum of a class's decisions squashed into (-1/3, 1/3).

    The squash breaks ties between votes and outweighs none, as in scikit-learn's
    one-vs-rest shape.
    """
    signs = pair_signs(num_classes)
    wins_less_losses = np.where(decisions >= 0, 1.0, -1.0) @ signs
    votes = (wins_less_losses + num_classes - 1) / 2
    confidences: NDArray[np.float64] = decisions @ signs
    scores: NDArray[np.float64] = votes + confidences / (3 * (np.abs(confidences) + 1))
    return scores


def _require_labels(
    latents: Latents, run: RunFolder
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if latents.train_labels is None or latents.test_labels is None:
        raise UserError(
            f"{run.latents}: latents of images without labels; an SVM needs labels, which come "
            f"from folders: train on ROOT/train/CLASS/... and ROOT/test/CLASS/..."
        )
    return latents.train_labels, latents.test_labels


def _require_finite(latents: NDArray[np.float32], name: str) -> None:
    num_bad = len(latents) - np.isfinite(latents).all(axis=1).sum()
    if num_bad:
        raise UserError(
            f"{name}: {num_bad:,} of {len(latents):,} rows are not finite (NaN or infinite); "
            f"train again, with a lower --learning_rate"
        )


def _require_measurements(metrics: dict[str, Any]) -> None:
    """Raise what `expected_of` reports where `metrics` are not what `fit_svm` wrote."""
    for name in ("accuracy", "precision", "recall", "f1", "seconds", "C", "gamma"):
        number(metrics[name])
    typed(metrics["num_support_vectors"], int)
    typed(metrics["backend"], str)
    classes = strings([each["name"] for each in metrics["per_class"]])
    counts = [[typed(count, int) for count in row] for row in metrics["confusion_matrix"]]
    if [len(row) for row in counts] != [len(classes)] * len(classes):
        raise ValueError("confusion_matrix is not of the classes")


def _fault(tensors: dict[str, Tensor], num_class_names: int) -> str | None:
    """What keeps `tensors` from being an SvmTable, if anything does."""
    names = [field.name for field in fields(SvmTable)]
    if sorted(tensors) != sorted(names):
        return f"holds the tensors {sorted(tensors)}, expected {sorted(names)}"
    for name, tensor in tensors.items():
        dtype = torch.int64 if name in ("num_support", "classes") else torch.float64
        if tensor.dtype != dtype:
            return f"{name} is {tensor.dtype}, expected {dtype}"
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    num_features = arrays["feature_mean"].size
    num_vectors = arrays["support_vectors"].size // max(num_features, 1)
    num_classes = arrays["classes"].size
    shapes = {
        "feature_mean": (num_features,),
        "feature_scale": (num_features,),
        "support_vectors": (num_vectors, num_features),
        "dual_coefficients": (num_classes - 1, num_vectors),
        "num_support": (num_classes,),
        "intercepts": (num_classes * (num_classes - 1) // 2,),
        "gamma": (),
        "classes": (num_classes,),
    }
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape:
            return f"{name} is {array.shape}, expected {shape}"
        if not np.isfinite(array).all():
            return f"{name} has values that are not finite"
    classes = arrays["classes"]
    if num_classes < 2 or not (np.diff(classes, prepend=-1, append=num_class_names) > 0).all():
        return f"classes are {classes.tolist()}, expected indices into {num_class_names} names"
    num_support = arrays["num_support"].tolist()  # whose sum can't overflow
    if min(num_support) < 1 or sum(num_support) != num_vectors:
        return f"num_support does not part {num_vectors} support vectors into {num_classes} classes"
    if not ((arrays["feature_scale"] > 0).all() and arrays["gamma"] > 0):
        return "feature_scale or gamma is not above 0"
    return None
