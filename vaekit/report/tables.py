"""The figures of a run in words and numbers, beside those of others."""

from typing import Any, NamedTuple

import numpy as np

from vaekit.report.circumstances import epochs_done
from vaekit.runs.reference import reference_for
from vaekit.runs.run import Run
from vaekit.training.state import kept_row

NUM_CONFUSIONS = 5  # commonest errors put in words


class Comparison(NamedTuple):
    """A figure as measured, beside the reference's where there is one."""

    name: str
    value: str
    reference: str | None = None
    verdict: str | None = None  # better, worse or equal, of the figures as printed


class Tile(NamedTuple):
    """A figure that people look for first, and what it stands beside."""

    name: str
    value: str
    beside: list[Comparison]  # of which `reference` is the value of the other


class Rival(NamedTuple):
    """This model or what takes no training; figures as printed, empty where there is none."""

    name: str
    numbers: str  # that stand for an image, where there are any
    mse: str = ""
    psnr: str = ""
    nats: str = ""
    accuracy: str = ""
    balanced_accuracy: str = ""


def comparisons(run: Run) -> list[Comparison]:
    """Losses and SVM figures, beside the reference's where the run can be compared with it."""
    reference = reference_for(run.config)
    table = []
    if epochs_done(run):
        last, kept = run.metrics[-1], kept_row(run.metrics)
        final = last.get("final_train_loss")
        train_reference = None if reference is None else reference.train_loss
        table = [
            _loss("Test loss", kept["test_loss"], reference and reference.test_loss),
            _loss("of it reconstruction", kept["test_reconstruction"]),
            _loss("of it KL", kept["test_kl"]),
        ]
        if "validation_loss" in kept:
            table.append(_loss("Validation loss", kept["validation_loss"]))
        if final is not None:
            table.append(_loss("Train loss", final, train_reference))
            train_reference = None
        table.append(_loss("Train loss while training", last["train_loss"], train_reference))
    if run.has_svm:
        table += [
            _score(name, run.svm_metrics[key], getattr(reference, key, None))
            for name, key in (
                ("SVM accuracy", "accuracy"),
                ("SVM balanced accuracy", "balanced_accuracy"),
                ("SVM precision", "precision"),
                ("SVM recall", "recall"),
                ("SVM F1", "f1"),
            )
            if key in run.svm_metrics  # the balanced one is newer than the rest
        ]
    return table


def tiles(run: Run) -> list[Tile]:
    """The first figures of the page."""
    reference, shown = reference_for(run.config), []
    for row in comparisons(run):
        if row.name in ("Test loss", "Train loss"):
            beside = [] if row.reference is None else [row._replace(name="reference")]
            shown.append(Tile(row.name, row.value, beside))
    if run.baselines is not None:
        own, others = run.baselines["vae"]["mse"], {}
        if run.baselines["pca"]:
            others["PCA"] = run.baselines["pca"][0]["mse"]
        others["mean image"] = run.baselines["mean_image"]["mse"]
        beside = [
            _comparison(name, own, other, digits=4, lower_is_better=True)
            for name, other in others.items()
        ]
        shown.append(Tile("Test MSE", f"{own:.4f}", beside))
    if run.has_svm:
        accuracy, others = run.svm_metrics["accuracy"], {}
        if reference is not None:
            others["reference"] = reference.accuracy
        if pca := run.svm_metrics.get("baselines", {}).get("pca"):
            others["PCA"] = max(each["accuracy"] for each in pca)
        beside = [_score(name, accuracy, other) for name, other in others.items()]
        shown.append(Tile("SVM accuracy", f"{accuracy:.4f}", beside))
    return shown


def rivals(run: Run) -> list[Rival]:
    """This model beside what takes no training; none before that was measured."""
    if run.baselines is None:
        return []
    svm = run.svm_metrics if run.has_svm else {}
    simple = svm.get("baselines", {"majority": None, "pca": []})
    on_components = {each["components"]: each for each in simple["pca"]}
    nats = run.baselines["mean_image"]["nats"]
    latent_dim = run.weights.vae.latent_dim
    table = [
        Rival(
            "this model",
            f"{latent_dim} latents",
            *_errors(run.baselines["vae"]),
            f"{kept_row(run.metrics)['test_loss']:.2f}" if run.metrics else "",
            *_accuracies(svm),
        )
    ]
    for each in run.baselines["pca"]:
        accuracies = _accuracies(on_components.get(each["components"]))
        numbers = f"{each['components']} components"
        table.append(Rival("PCA", numbers, *_errors(each), "", *accuracies))
    errors = _errors(run.baselines["mean_image"])
    table.append(Rival("the mean image", "", *errors, "" if nats is None else f"{nats:.2f}"))
    if (majority := simple["majority"]) is not None:
        name = f"saying {majority['name']} of each"
        table.append(Rival(name, "", "", "", "", *_accuracies(majority)))
    return table


def commonest_confusions(run: Run) -> list[str]:
    """The most frequent errors of the SVM in words, commonest first."""
    if not run.has_svm:
        return []
    names = class_names(run.svm_metrics)
    errors = np.array(run.svm_metrics["confusion_matrix"])
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:NUM_CONFUSIONS]
    pairs = [np.unravel_index(index, errors.shape) for index in order]
    return [
        f"{names[true]} taken for {names[predicted]}: {errors[true, predicted]}"
        for true, predicted in pairs
        if errors[true, predicted]
    ]


def class_names(svm: dict[str, Any]) -> list[str]:
    return [each["name"] for each in svm["per_class"]]


def _loss(name: str, value: float, reference: float | None = None) -> Comparison:
    return _comparison(name, value, reference, digits=2, lower_is_better=True)


def _score(name: str, value: float, reference: float | None) -> Comparison:
    return _comparison(name, value, reference, digits=4, lower_is_better=False)


def _comparison(
    name: str, value: float, reference: float | None, *, digits: int, lower_is_better: bool
) -> Comparison:
    printed = f"{value:.{digits}f}"
    if reference is None:
        return Comparison(name, printed)
    beside = f"{reference:.{digits}f}"
    lead = float(printed) - float(beside)
    verdict = "equal" if lead == 0 else "better" if (lead < 0) == lower_is_better else "worse"
    return Comparison(name, printed, beside, verdict)


def _errors(figures: dict[str, Any]) -> tuple[str, str]:
    psnr = "" if figures["psnr"] is None else f"{figures['psnr']:.1f}"
    return f"{figures['mse']:.4f}", psnr


def _accuracies(figures: dict[str, Any] | None) -> tuple[str, str]:
    names = ("accuracy", "balanced_accuracy")
    found = [(figures or {}).get(name) for name in names]
    accuracy, balanced = ("" if each is None else f"{each:.4f}" for each in found)
    return accuracy, balanced
