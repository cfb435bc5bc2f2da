"""The SVM in a run folder: its table, and what it was measured to do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import numpy as np

from vaekit.config import ClassWeight
from vaekit.storage.damage import Damaged, as_written, number, strings, typed
from vaekit.storage.sealed import read_sealed
from vaekit.svm.table import SvmTable, fault_of_arrays

FORMAT = "vaekit-svm"
FORMAT_VERSION = 1
METRICS_VERSION = 2


class Svm(NamedTuple):
    """A table with what is needed to use it, and what it was made from."""

    table: SvmTable
    class_names: tuple[str, ...]
    model_sha256: str
    latents_sha256: str
    class_weight: ClassWeight | None = None  # that it was fitted with


# PyTorch is imported where a table is read or written: its figures can be read without.


def write_table(path: Path, svm: Svm) -> None:
    import torch

    from vaekit.storage.tensors import write_tensors

    metadata = {
        "class_names": svm.class_names,
        "model_sha256": svm.model_sha256,
        "latents_sha256": svm.latents_sha256,
        "class_weight": svm.class_weight,
    }
    tensors = {
        name: torch.from_numpy(np.asarray(array, order="C"))
        for name, array in vars(svm.table).items()
    }
    write_tensors(path, tensors, metadata, format_name=FORMAT, version=FORMAT_VERSION)


def read_table(path: Path) -> Svm:
    """What `write_table` wrote. Raises `Damaged` where the file is something else."""
    from vaekit.storage.tensors import read_tensors

    tensors, metadata = read_tensors(path, format_name=FORMAT, version=FORMAT_VERSION)
    with as_written():
        class_names = strings(metadata["class_names"])
        model_sha256 = typed(metadata["model_sha256"], str)
        latents_sha256 = typed(metadata["latents_sha256"], str)
        class_weight = _class_weight(metadata)
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    fault = fault_of_arrays(arrays, len(class_names))
    if fault is not None:
        raise Damaged(f"{fault}; the file is damaged")
    table = SvmTable(**{**arrays, "gamma": float(arrays["gamma"])})
    return Svm(table, class_names, model_sha256, latents_sha256, class_weight)


def read_svm_metrics(path: Path) -> dict[str, Any]:
    """What was measured of the SVM. Raises `Damaged` where the file is something else."""
    metrics = read_sealed(path, version=METRICS_VERSION)
    with as_written():
        for name in ("accuracy", "precision", "recall", "f1", "seconds", "C", "gamma"):
            number(metrics[name])
        number(metrics.get("log_variances", 1.0))
        typed(metrics["num_support_vectors"], int)
        typed(metrics["backend"], str)
        classes = strings([each["name"] for each in metrics["per_class"]])
        counts = [[typed(count, int) for count in row] for row in metrics["confusion_matrix"]]
        if [len(row) for row in counts] != [len(classes)] * len(classes):
            raise ValueError("confusion_matrix is not of the classes")
        for name in ("svm_sha256", "latents_sha256"):
            typed(metrics[name], str)
        _class_weight(metrics)
        for name in ("num_train", "num_to_draw_from"):
            typed(metrics.get(name, 0), int)  # the draw is newer than the rest
        if "balanced_accuracy" in metrics:
            number(metrics["balanced_accuracy"])
        if "baselines" in metrics:
            _check_baselines(metrics["baselines"])
    return metrics


def _check_baselines(baselines: dict[str, Any]) -> None:
    """Raise what `as_written` reports where these are no figures of simpler classifiers."""
    typed(baselines["majority"]["name"], str)
    for each in (baselines["majority"], *baselines["pca"]):
        number(each["accuracy"])
        number(each["balanced_accuracy"])
    for each in baselines["pca"]:
        typed(each["components"], int)


def _class_weight(metadata: Mapping[str, Any]) -> ClassWeight | None:
    """None for an SVM of before there were such weights, too."""
    found = metadata.get("class_weight")
    if found not in (None, *get_args(ClassWeight)):
        raise ValueError(f"the class weight {found!r:.100}")
    return cast("ClassWeight | None", found)
