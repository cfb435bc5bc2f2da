"""Whether a run does better than what takes no training, in words, and what to change if not."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from vaekit.config import TrainConfig
from vaekit.models.settle import starts_from_components
from vaekit.runs.metrics import Row
from vaekit.training.settle import enough_steps
from vaekit.training.state import kept_row

FEW_NATS = 1.0  # that all latents of an image together hold
RISE = 0.01  # of a loss above its lowest, that is no noise

PCA = "PCA with as many numbers as latents"
SVM_ADVICE = "more latents (--model.latent_dim), a longer training, another --C or --gamma"


Outcome = Literal["better", "equal", "worse"]
_WORDS = {"better": "better", "equal": "no better", "worse": "WORSE"}


class Verdict(NamedTuple):
    """One finding about a run."""

    outcome: Outcome
    than: str
    found: str  # the figures
    advice: str = ""  # what to change


def judge(
    config: TrainConfig,
    rows: list[Row],
    baselines: dict[str, Any] | None,
    svm_metrics: dict[str, Any] | None = None,
) -> list[Verdict]:
    """What is to be said first of a run, as far as it has been measured."""
    verdicts = []
    if baselines is not None:
        verdicts.append(judge_reconstructions(config, rows, baselines))
    if svm_metrics is not None and "baselines" in svm_metrics:
        verdicts.append(judge_svm(svm_metrics))
    return verdicts


def final_figures(rows: list[Row], baselines: dict[str, Any] | None) -> dict[str, float]:
    """What trackers show last: the test loss of the weights kept, and errors beside others'."""
    kept = kept_row(rows)
    names = ("test_loss", "test_reconstruction", "test_kl")
    figures: dict[str, float] = {f"final/{name}": kept[name] for name in names}
    if baselines is not None:
        figures["final/test_mse"] = baselines["vae"]["mse"]
        figures["final/test_mse_of_mean_image"] = baselines["mean_image"]["mse"]
        for each in baselines["pca"][:1]:
            figures["final/test_mse_of_pca"] = each["mse"]
    return figures


def lines(verdicts: list[Verdict]) -> Iterator[str]:
    """As a terminal shows them."""
    for each in verdicts:
        yield f"{_WORDS[each.outcome]} than {each.than}: {each.found}"
        if each.advice:
            yield f"  to change: {each.advice}"


def judge_reconstructions(
    config: TrainConfig, rows: list[Row], baselines: dict[str, Any]
) -> Verdict:
    """By the error of the test images, decoded from the means of their latents."""
    own, mean_image, pca = baselines["vae"], baselines["mean_image"], baselines["pca"][:1]
    found = ", ".join(
        [
            f"test images are reconstructed with MSE {own['mse']:.4f}{_decibels(own)}",
            *(f"by PCA with {each['components']} components {each['mse']:.4f}" for each in pca),
            f"by the mean image {mean_image['mse']:.4f}",
        ]
    )
    if own["mse"] >= mean_image["mse"]:
        return Verdict("worse", "the mean image", found, _advice(config, rows))
    if any(own["mse"] > each["mse"] for each in pca):
        return Verdict("worse", PCA, found, _advice(config, rows))
    return Verdict("better", PCA if pca else "the mean image", found)


def judge_svm(metrics: dict[str, Any]) -> Verdict:
    """By the test accuracy; the balanced one where the classes were weighted so."""
    figure = "balanced_accuracy" if metrics["class_weight"] else "accuracy"
    name, own = figure.replace("_", " "), metrics[figure]
    baselines = metrics["baselines"]
    majority = baselines["majority"]
    others = [
        *(f"on {each['components']} components {each[figure]:.4f}" for each in baselines["pca"]),
        f"saying {majority['name']} of each {majority[figure]:.4f}",
    ]
    found = f"the SVM's {name} is {own:.4f} on the latents, {', '.join(others)}"
    if own <= majority[figure]:
        return Verdict("worse", "naming the commonest class", found, SVM_ADVICE)
    best = max((each[figure] for each in baselines["pca"]), default=None)
    if best is None:
        return Verdict("better", "naming the commonest class", found)
    if own > best:
        return Verdict("better", "the same SVM on PCA", found)
    outcome: Outcome = "equal" if own == best else "worse"
    return Verdict(outcome, "the same SVM on PCA", found, SVM_ADVICE)


def _advice(config: TrainConfig, rows: list[Row]) -> str:
    """What to change, the likeliest cause first; from what the epochs show."""
    causes = list(_causes(config, rows)) if rows else []
    return "; ".join(causes) or "another model or a higher --learning_rate"


def _causes(config: TrainConfig, rows: list[Row]) -> Iterator[str]:
    last, kept, enough = rows[-1], kept_row(rows), enough_steps(config)
    if last["epoch"] < config.epochs:
        yield f"go on to the end, {last['epoch']} of {config.epochs} epochs are done"
    elif last["step"] < enough and not starts_from_components(config.model):
        per_epoch = max(1, last["step"] // max(1, last["epoch"]))
        yield f"--epochs {-(-enough // per_epoch)}, since {last['step']:,} steps teach little"
    if config.model.architecture == "conv":
        if config.model.likelihood == "bernoulli":
            yield "--model.likelihood gaussian, whose outputs are means, as those of components"
        elif not starts_from_components(config.model):
            yield "--model.thumbnail false, which starts from the components"
    if kept["test_kl"] < FEW_NATS:
        yield (
            f"a lower --learning_rate, since the latents hold next to nothing "
            f"({kept['test_kl']:.2f} nats an image)"
        )
    watched = "validation_loss" if "validation_loss" in last else "test_loss"
    best = min(rows[1:], key=lambda row: float(row[watched]), default=last)
    if config.keep != "best" and last[watched] > best[watched] + RISE * abs(best[watched]):
        yield (
            f"--data.validation 0.1, to keep the best epoch: the {watched.replace('_', ' ')} rose "
            f"after epoch {best['epoch']}"
        )


def _decibels(figures: dict[str, Any]) -> str:
    return "" if figures["psnr"] is None else f" (PSNR {figures['psnr']:.1f} dB)"
