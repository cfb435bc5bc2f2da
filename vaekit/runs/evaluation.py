"""What the latents of a run were measured to be worth: evaluation/evaluation.json."""

from pathlib import Path
from typing import Any

from vaekit.storage.damage import as_written, number, typed
from vaekit.storage.sealed import read_sealed

FORMAT_VERSION = 1
CLASSIFIERS = ("linear_svm", "rbf_svm", "knn")


def read_evaluation(path: Path) -> dict[str, Any]:
    """What `vaekit evaluate` wrote. Raises `Damaged` where the file is something else."""
    evaluation = read_sealed(path, version=FORMAT_VERSION)
    with as_written():
        for name in ("model_sha256", "latents_sha256"):
            typed(evaluation[name], str)
        _check_probes(evaluation["probes"])
        for each in evaluation["dimensions"]:
            number(each["kl"])
            typed(each["active"], bool)
        _check_likelihood(evaluation["likelihood"])
        for each in evaluation["reconstruction"]:
            typed(each["name"], str)
            number(each["mse"])
            for figure in ("psnr", "ssim"):
                if each[figure] is not None:
                    number(each[figure])
    return evaluation


def _check_probes(probes: dict[str, Any]) -> None:
    if probes["missing"] is not None:
        typed(probes["missing"], str)
    for count in ("num_train", "num_test"):
        typed(probes[count], int)
    for each in probes["features"]:
        typed(each["name"], str)
        typed(each["numbers"], int)
        for classifier in CLASSIFIERS:
            number(each[classifier])
        for few in each["by_labels"]:
            typed(few["num_labels"], int)
            number(few["mean"])
            number(few["spread"])


def _check_likelihood(likelihood: dict[str, Any]) -> None:
    for name in ("nats", "standard_error", "bound"):
        number(likelihood[name])
    if likelihood["bits_per_dimension"] is not None:
        number(likelihood["bits_per_dimension"])
    for name in ("num_images", "num_samples"):
        typed(likelihood[name], int)
    typed(likelihood["unit"], str)
