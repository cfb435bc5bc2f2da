"""What was run, on what and when, and the commands that do it again."""

import shlex
from collections.abc import Iterable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from vaekit.config import MAX_TRAIN
from vaekit.models.vae import num_parameters
from vaekit.runs.products import ENVIRONMENT
from vaekit.runs.run import Run
from vaekit.storage.damage import as_written, damage_told, typed
from vaekit.training.augmentation import augmentation_told
from vaekit.training.state import kept_row


class Fact(NamedTuple):
    """A setting or a circumstance of the run."""

    name: str
    value: str


def settings(run: Run) -> list[Fact]:
    """What was run, on what, when."""
    config, images, environment = run.config, run.images, _last_start(run)
    model = config.model
    channels, height, width = images.shape
    colours = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGBA"}[channels]
    classes = f"{len(images.class_names)} classes" if images.class_names else "no labels"
    validated = 0 if images.validation is None else len(images.validation.pixels)
    validation = f"{validated:,} to validate on, " if validated else ""
    held_out = " held-out" if config.data.holdout else ""
    noise = f", input noise {config.input_noise}" if config.input_noise else ""
    augmented = augmentation_told(config, ", images rotated, scaled and shifted a little")
    decay = f", weight decay {config.weight_decay}" if config.weight_decay else ""
    temperature = f", temperature {config.temperature}" if config.temperature != 1 else ""
    average = f", averaged weights (EMA {config.ema_decay})" if config.ema_decay else ""
    kept = ""
    if config.keep == "best" and epochs_done(run):
        kept = (
            f", the weights of epoch {kept_row(run.metrics)['epoch']} kept, by the validation set"
        )
    start = f", from the weights of {config.init_from}" if config.init_from else ""
    facts = [
        Fact(
            "Images",
            f"{config.data.name}: {len(images.train.pixels):,} to train on, {validation}"
            f"{len(images.test.pixels):,}{held_out} to test on; "
            f"{height}x{width} pixels, {colours}, {classes}",
        ),
        Fact(
            "Model",
            f"convolutional VAE ({model.architecture}), {model.latent_dim} latent dimensions, "
            f"{model.likelihood} likelihood, {num_parameters(run.weights.vae):,} parameters",
        ),
        Fact(
            "Training",
            f"{epochs_done(run)} of {config.epochs} epochs, batches of {config.batch_size}, "
            f"Adam at {config.learning_rate:g} with a cosine{augmented}{noise}{decay}"
            f"{temperature}{average}, seed {config.seed}{start}{kept}",
        ),
    ]
    if run.has_latents:
        facts.append(
            Fact(
                "Latents",
                f"{_shape(run.latents.train)} to train on, {_shape(run.latents.test)} "
                f"to test on: mean and log-variance",
            )
        )
    if run.has_svm:
        svm = run.svm_metrics
        weights = "classes weighted equally, " if svm.get("class_weight") else ""
        fitted, available = _fitted_of(svm)
        draw = "" if fitted == available else f"a draw of {fitted:,} of {available:,} latents, "
        facts.append(
            Fact(
                "SVM",
                f"RBF kernel on mean and log-variance, of weight {_weight_of(svm):g}, C "
                f"{svm['C']:g}, gamma {svm['gamma']:g}, "
                f"{weights}{draw}{svm['num_support_vectors']:,} support vectors, fitted in "
                f"{svm['seconds']:,.1f} s by {svm['backend']}",
            )
        )
    seconds = sum(row["seconds"] for row in run.metrics if row["seconds"])
    if seconds:
        minutes, rest = divmod(round(seconds), 60)
        facts.append(Fact("Time to train", f"{minutes} min {rest:02d} s, without evaluation"))
    facts += [
        Fact(name, value)
        for name, value in (
            ("Device", _device(environment)),
            ("Started", environment.get("time", "").replace("T", " ").replace("+00:00", " UTC")),
            ("Versions", _versions(environment)),
            ("Git revision", environment.get("git_revision")),
        )
        if value
    ]
    return facts


def commands(run: Run) -> str:
    """The commands that make an equal run in a folder beside this one."""
    config = shlex.quote(str(run.folder.config))
    again = shlex.quote(f"{run.folder.path}-again")
    svm_flags = ""
    if run.has_svm:
        svm_flags = f" --C {run.svm_metrics['C']:g} --gamma {run.svm_metrics['gamma']:g}"
        svm_flags += f" --log_variances {_weight_of(run.svm_metrics):g}"
        if run.svm_metrics.get("class_weight"):
            svm_flags += f" --class_weight {run.svm_metrics['class_weight']}"
        fitted, available = _fitted_of(run.svm_metrics)
        if fitted != min(available, MAX_TRAIN):
            svm_flags += f" --max_train {fitted}"
    arguments = f"--config {config} --run {again}"
    return "\n".join(
        [
            f"vaekit train {arguments}",
            "# or on several processes, from the source tree:",
            f"# accelerate launch --config_file accelerate_config.yaml vaekit/train.py {arguments}",
            f"vaekit latents {again}",
            *([f"vaekit svm {again}{svm_flags}"] if run.weights.class_names or run.has_svm else []),
            f"vaekit report {again}",
        ]
    )


def epochs_done(run: Run) -> int:
    return int(run.metrics[-1]["epoch"]) if run.metrics else 0


def _weight_of(svm: dict[str, Any]) -> float:
    """That of log-variances; they had no other than 1 once."""
    return float(svm.get("log_variances", 1.0))


def _fitted_of(svm: dict[str, Any]) -> tuple[int, int]:
    """On how many training latents it was fitted, and of how many they were drawn."""
    return svm["num_train"], svm.get("num_to_draw_from", svm["num_train"])


def _last_start(run: Run) -> dict[str, Any]:
    """What the last start ran on; {} where none is recorded."""
    last = run.environment[-1] if run.environment else {}
    with damage_told(run.folder.environment, ENVIRONMENT.remedy), as_written():
        typed(last.get("time", ""), str)
        typed(last.get("versions", {}), dict)
    return last


def _device(environment: dict[str, Any]) -> str:
    precision = environment.get("mixed_precision")
    return _listed(
        [
            environment.get("device"),
            _counted(environment.get("num_processes"), "process", "processes"),
            _counted(environment.get("threads"), "thread", "threads"),
            "float32" if precision == "no" else precision,
            environment.get("execution_path"),
        ]
    )


def _versions(environment: dict[str, Any]) -> str:
    versions = environment.get("versions", {})
    return _listed(f"{package} {version}" for package, version in versions.items())


def _shape(array: NDArray[Any]) -> str:
    return " x ".join(f"{length:,}" for length in array.shape)


def _counted(count: int | None, one: str, many: str) -> str | None:
    return None if count is None else f"{count} {one if count == 1 else many}"


def _listed(parts: Iterable[str | None]) -> str:
    return ", ".join(part for part in parts if part)
