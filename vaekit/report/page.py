"""The report of a run: its settings, figures and pictures on one page that opens offline."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from vaekit.config import MAX_TRAIN, to_dict
from vaekit.errors import UserError
from vaekit.evaluation.probes import NUM_DRAWS
from vaekit.evaluation.quality import trust_in
from vaekit.images import pictures
from vaekit.images.formats import UNREADABLE, open_image
from vaekit.images.mapped import PixelArray
from vaekit.images.pixels import as_floats, as_pixels
from vaekit.models.gaussian import kl_per_dimension
from vaekit.models.vae import num_parameters
from vaekit.report import figures, standouts
from vaekit.report.embedding import Picture, png_uri, render
from vaekit.report.map import latent_map, perplexity_for, some_indices, standardised
from vaekit.report.thumbnails import thumbnails
from vaekit.runs.baselines import measure_baselines
from vaekit.runs.folder import RunFolder
from vaekit.runs.products import ENVIRONMENT
from vaekit.runs.reference import reference_for
from vaekit.runs.run import Run
from vaekit.runs.verdict import judge, lines
from vaekit.storage.damage import as_written, damage_told, typed
from vaekit.storage.files import write_text
from vaekit.training.state import kept_row

NUM_ORIGINALS = 64
NUM_RECONSTRUCTIONS = 32
MAX_SAMPLES = 12  # pictures of generated images, spread over the epochs
NUM_MEASURED = 1000  # images over which the information of a latent dimension is averaged
MAX_TRAVERSED = 16  # latent dimensions
TRAVERSAL_STEPS = np.linspace(-2.5, 2.5, 11)
NUM_CONFUSIONS = 5  # commonest errors put in words


class Sample(NamedTuple):
    """The generated images of one epoch."""

    epoch: int
    picture: Picture


class Fact(NamedTuple):
    """A setting or a circumstance of the run."""

    name: str
    value: str


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


class Traversal(NamedTuple):
    """A picture of `num_shown` latent dimensions, the most informative first."""

    picture: Picture
    num_shown: int
    nats: list[tuple[str, str]]  # (dimension, mean KL) of each


class Map(NamedTuple):
    """A 2-D map of test latents."""

    picture: Picture
    num_points: int
    perplexity: float
    trust: float | None  # how far its neighbours are neighbours among the latents
    thumbnails: dict[str, Any]


def write_report(run: Run) -> Path:
    """Draw the figures of a run and write its report.html; the stage behind `vaekit report`.

    Parts whose input is not made yet are left out, with a sentence that says which command
    makes it. Returns the path of the page. Raises `UserError` where the run has no weights
    yet, or where something in it is damaged or does not belong to the rest.
    """
    folder, config = run.folder, run.config
    with folder.lock():
        measure_missing_baselines(run)
        rows = run.metrics
        verdicts = judge(config, rows, run.baselines, run.svm_metrics if run.has_svm else None)
        page = {
            "name": folder.path.resolve().name,
            "run": folder.quoted,
            "train_again": folder.train_again,
            "settings": settings(run),
            "config_yaml": yaml.safe_dump(to_dict(config), sort_keys=False),
            "reading": run.reading,
            "verdicts": verdicts,
            "tiles": tiles(run),
            "rivals": rivals(run),
            "num_fitted": run.baselines and run.baselines["num_fitted"],
            "comparisons": comparisons(run),
            "reference": reference_for(run.config),
            "has_labels": has_labels(run),
            "has_latents": run.has_latents,
            "originals": draw_originals(run),
            "reconstructions": draw_reconstructions(run),
            "samples": read_samples(run),
            "losses": draw_losses(run),
            "untrained_loss": rows[0]["test_loss"] if rows else None,
            "map": draw_map(run),
            "num_test": len(run.images.test.pixels),
            "traversal": draw_traversal(run),
            "latent_dim": config.model.latent_dim,
            "unit": run.weights.vae.likelihood.unit,
            "evaluation": run.evaluation if run.has_evaluation else None,
            "num_draws": NUM_DRAWS,
            "strangest": standouts.strangest(run),
            "examined_step": standouts.examined_step(len(run.images.test.pixels)),
            "mislabelled": standouts.mislabelled(run),
            "svm": run.svm_metrics if run.has_svm else None,
            "confusion": draw_confusion(run),
            "confusions": commonest_confusions(run),
            "commands": commands(run),
        }
        write_text(folder.report, render("page.html.jinja", page))
    for line in lines(verdicts):
        print(line, flush=True)
    print(f"report: {folder.report}", flush=True)
    return folder.report


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
    decay = f", weight decay {config.weight_decay}" if config.weight_decay else ""
    average = f", averaged weights (EMA {config.ema_decay})" if config.ema_decay else ""
    kept = ""
    if config.keep == "best" and _epochs_done(run):
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
            f"{_epochs_done(run)} of {config.epochs} epochs, batches of {config.batch_size}, "
            f"Adam at {config.learning_rate:g} with a cosine{noise}{decay}{average}, "
            f"seed {config.seed}{start}{kept}",
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
                f"RBF kernel on mean and log-variance, C {svm['C']:g}, gamma {svm['gamma']:g}, "
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


def comparisons(run: Run) -> list[Comparison]:
    """Losses and SVM figures, beside the reference's where the run can be compared with it."""
    reference = reference_for(run.config)
    table = []
    if _epochs_done(run):
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


def measure_missing_baselines(run: Run) -> None:
    """For a run of before there were any, or one whose training went on since."""
    if run.baselines is None:
        weights = run.weights
        measure_baselines(run.folder, weights.vae, run.images, weights.images_sha256)
        run.forget("baselines", "pca_scores")


def draw_originals(run: Run) -> Picture:
    pixels = _some(run.images.train.pixels, NUM_ORIGINALS)
    picture = pictures.image_grid(pixels)
    return _draw(run.folder, "originals", picture, f"{len(pixels)} images of the training set")


def draw_reconstructions(run: Run) -> Picture:
    vae = run.weights.vae
    originals = _some(run.images.test.pixels, NUM_RECONSTRUCTIONS)
    means = vae.encode(as_floats(torch.from_numpy(originals))).mean
    picture = pictures.reconstruction_grid(originals, as_pixels(vae.decode(means)))
    alt = f"{len(originals)} test images, each row above the row of their reconstructions"
    return _draw(run.folder, "reconstructions", picture, alt)


def read_samples(run: Run) -> list[Sample]:
    """The pictures that training left, at most `MAX_SAMPLES`, spread over the epochs."""
    paths = [run.folder.samples(row["epoch"]) for row in run.metrics]
    paths = [path for path in paths if path.exists()]
    if len(paths) > MAX_SAMPLES:
        chosen = np.linspace(0, len(paths) - 1, MAX_SAMPLES).round().astype(int)
        paths = [paths[index] for index in chosen]
    samples = []
    for path in paths:
        epoch = int(path.stem.removeprefix("epoch-"))
        when = f"after epoch {epoch}" if epoch else "before training"
        samples.append(Sample(epoch, _embed(path, f"Generated images {when}")))
    return samples


def draw_losses(run: Run) -> list[Picture]:
    """The whole loss, its reconstruction and its KL; none before the first epoch is done."""
    if not _epochs_done(run):
        return []
    folder, rows, reference = run.folder, run.metrics, reference_for(run.config)
    total = figures.loss_curve(rows, "loss", reference and reference.test_loss)
    reconstruction = figures.loss_curve(rows, "reconstruction")
    kl = figures.loss_curve(rows, "kl")
    return [
        _draw(folder, "loss", total, "Curves of the train and test loss over the epochs"),
        _draw(folder, "loss-reconstruction", reconstruction, "Curves of the reconstruction term"),
        _draw(folder, "loss-kl", kl, "Curves of the KL term"),
    ]


def draw_map(run: Run) -> Map | None:
    latents = run.latents if run.has_latents else None
    placed = None if latents is None else latent_map(run.folder, latents)
    if latents is None or placed is None:
        return None
    labels = None if latents.test_labels is None else latents.test_labels[placed.indices]
    picture = figures.latent_map(placed.points, labels, latents.class_names)
    num_points = len(placed.indices)
    features = latents.test_means[placed.indices]
    alt = f"Map of {num_points:,} test latents"
    if labels is not None:
        alt += ", coloured by class"
    return Map(
        _draw(run.folder, "tsne", picture.image, alt),
        num_points,
        perplexity_for(num_points),
        trust_in(placed.points, standardised(features)),
        thumbnails(
            run.images.test.pixels[placed.indices],
            picture.places,
            standouts.titles(run, "test", placed.indices),
        ),
    )


def draw_traversal(run: Run) -> Traversal:
    """Decode along each latent dimension, the others at 0, the prior's mean."""
    vae = run.weights.vae
    num_dimensions, num_steps = vae.latent_dim, len(TRAVERSAL_STEPS)
    nats = _nats_per_dimension(run)
    order = np.argsort(-nats, kind="stable")[:MAX_TRAVERSED]
    latents = torch.zeros(len(order), num_steps, num_dimensions)
    for row, dimension in enumerate(order):
        latents[row, :, int(dimension)] = torch.from_numpy(TRAVERSAL_STEPS)
    decoded = as_pixels(vae.decode(latents.flatten(end_dim=1)))
    names = [f"z{dimension + 1}" for dimension in order]
    steps = [
        f"{step:+.1f}".replace("-", "\N{MINUS SIGN}") if step else "0" for step in TRAVERSAL_STEPS
    ]
    images = decoded.reshape(len(order), num_steps, *vae.image_shape)
    alt = "Decoded images: a row for each latent dimension, from low values to high ones"
    picture = figures.latent_traversal(images, names, steps)
    return Traversal(
        _draw(run.folder, "traversal", picture, alt),
        len(order),
        [(name, f"{nats[dimension]:.2f}") for name, dimension in zip(names, order, strict=True)],
    )


def draw_confusion(run: Run) -> Picture | None:
    if not run.has_svm:
        return None
    picture = figures.confusion_counts(
        np.array(run.svm_metrics["confusion_matrix"]), _class_names(run.svm_metrics)
    )
    alt = "Confusion matrix: true classes in rows, predicted classes in columns, with counts"
    return _draw(run.folder, "confusion", picture, alt)


def commonest_confusions(run: Run) -> list[str]:
    """The most frequent errors of the SVM in words, commonest first."""
    if not run.has_svm:
        return []
    names = _class_names(run.svm_metrics)
    errors = np.array(run.svm_metrics["confusion_matrix"])
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:NUM_CONFUSIONS]
    pairs = [np.unravel_index(index, errors.shape) for index in order]
    return [
        f"{names[true]} taken for {names[predicted]}: {errors[true, predicted]}"
        for true, predicted in pairs
        if errors[true, predicted]
    ]


def commands(run: Run) -> str:
    """The commands that make an equal run in a folder beside this one."""
    config = shlex.quote(str(run.folder.config))
    again = shlex.quote(f"{run.folder.path}-again")
    svm_flags = ""
    if run.has_svm:
        svm_flags = f" --C {run.svm_metrics['C']:g} --gamma {run.svm_metrics['gamma']:g}"
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


def _draw(run: RunFolder, name: str, image: Image.Image, alt: str) -> Picture:
    path = run.figures / f"{name}.png"
    pictures.write_image(path, image)
    print(f"drawn: {path}", flush=True)
    return _embed(path, alt)


def _embed(path: Path, alt: str) -> Picture:
    """A PNG of the run as a data URI, so that the page is one file."""
    try:
        with open_image(path, only=("PNG",)) as image:
            image.load()
            width, height = image.size
    except UNREADABLE as error:
        raise UserError(f"{path}: not a whole picture any more; delete it") from error
    return Picture(png_uri(path.read_bytes()), alt, width, height)


def _some(pixels: PixelArray, most: int) -> NDArray[np.uint8]:
    some: NDArray[np.uint8] = pixels[some_indices(len(pixels), most)]
    return some


def _nats_per_dimension(run: Run) -> NDArray[np.float32]:
    """KL of the posterior from the prior in each latent dimension [L], mean over test images."""
    pixels = torch.from_numpy(_some(run.images.test.pixels, NUM_MEASURED))
    kl = kl_per_dimension(run.weights.vae.encode(as_floats(pixels)))
    nats: NDArray[np.float32] = kl.mean(dim=0).numpy()
    return nats


def _epochs_done(run: Run) -> int:
    return int(run.metrics[-1]["epoch"]) if run.metrics else 0


def _class_names(svm: dict[str, Any]) -> list[str]:
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


def _fitted_of(svm: dict[str, Any]) -> tuple[int, int]:
    """On how many training latents it was fitted, and of how many they were drawn."""
    return svm["num_train"], svm.get("num_to_draw_from", svm["num_train"])


def _errors(figures: dict[str, Any]) -> tuple[str, str]:
    psnr = "" if figures["psnr"] is None else f"{figures['psnr']:.1f}"
    return f"{figures['mse']:.4f}", psnr


def _accuracies(figures: dict[str, Any] | None) -> tuple[str, str]:
    names = ("accuracy", "balanced_accuracy")
    found = [(figures or {}).get(name) for name in names]
    accuracy, balanced = ("" if each is None else f"{each:.4f}" for each in found)
    return accuracy, balanced


def _last_start(run: Run) -> dict[str, Any]:
    """What the last start ran on; {} where none is recorded."""
    last = run.environment[-1] if run.environment else {}
    with damage_told(run.folder.environment, ENVIRONMENT.remedy), as_written():
        typed(last.get("time", ""), str)
        typed(last.get("versions", {}), dict)
    return last


def has_labels(run: Run) -> bool:
    return run.images.test.labels is not None


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
