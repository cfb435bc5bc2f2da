"""From a run to a bundle: graphs, manifest, golden vectors, and what the explorer shows."""

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from torch import nn

from vaekit import __version__
from vaekit.errors import UserError, say
from vaekit.export import float16 as half
from vaekit.export.compare import MAX_BATCH, TOLERANCES, Expected, Reference, compare, expect
from vaekit.export.graphs import (
    OPSET,
    ClassifierGraph,
    DecoderGraph,
    EncoderGraph,
    SvmGraph,
    to_onnx,
)
from vaekit.export.manifest import (
    CLASSIFIER,
    DECODER,
    ENCODER,
    GOLDEN,
    MANIFEST,
    SVM,
    Arrays,
    GoldenCase,
    write_golden,
    write_manifest,
)
from vaekit.export.metadata import describe, signature
from vaekit.export.preparation import preparation
from vaekit.export.verify import verify
from vaekit.report.map import latent_map
from vaekit.runs.run import Run
from vaekit.storage.files import fsync, write_bytes, write_json, write_text
from vaekit.training.state import kept_row

StoredWeights = Literal["fp32", "fp16"]

FOLDERS: dict[StoredWeights, str] = {"fp32": "onnx", "fp16": "onnx-fp16"}
NUM_GOLDEN = 10
NUM_PICKED = 100  # test images that the explorer offers
EXPLORER = "explorer.json"
README = "README.md"
FILES = {ENCODER, DECODER, SVM, CLASSIFIER, MANIFEST, GOLDEN, EXPLORER, README}

TEXTS = {
    ENCODER: "Images to the diagonal Gaussian over their latents: its mean and log-variance.",
    DECODER: "Latents to images: the means of the pixels, from 0 to 1.",
    SVM: (
        "The mean and log-variance of latents to a label: standardisation and a one-vs-one RBF SVM."
    ),
    CLASSIFIER: "Images to a label: the encoder and the SVM in one graph.",
}
OUTPUTS = {
    ENCODER: ("mean", "log_variance"),
    DECODER: ("image",),
    SVM: ("label", "scores", "decisions"),
    CLASSIFIER: ("label", "scores"),
}


def export_run(run: Run, weights: StoredWeights = "fp32") -> Path:
    """Make the ONNX bundle of a run; the stage behind `vaekit export`. Returns its folder.

    It is built beside its place, compared with PyTorch on every test image, and put there only
    if all is within tolerance. Raises `UserError` where it is not, where parts of the run are
    missing or don't belong together, and where the place holds something that is no bundle.
    """
    _ = run.config  # a folder without one is no run, and nothing is written there
    target = run.folder.path / FOLDERS[weights]
    with run.folder.lock(), new_bundle(target) as folder:
        reference = Reference(run.weights.vae, run.svm.table if run.has_svm else None)
        metadata, explorer = describe_run(run), explorer_data(run)
        test = run.images.test
        run.forget("images", "unchecked_images")  # nobody needs those it was trained on
        if weights == "fp16":
            reference, metadata["weights_loss"] = half.round_weights(reference, test)
        metadata |= write_graphs(folder, reference, metadata, stored_as=weights)
        comparison = compare(folder, reference, test.pixels)
        comparison.require_within_tolerance()
        metadata["check"] = comparison.metadata()
        write_golden(folder, golden_cases(reference, test.pixels))
        write_json(folder / EXPLORER, explorer)
        write_text(folder / README, readme(metadata))
        write_manifest(folder, metadata)
        verify(folder)
    print(comparison.summary())
    quoted = run.folder.quoted
    if test.labels is None:
        print("the images have no labels, so the bundle has no SVM")
    elif reference.table is None:
        print(
            f"no SVM in {run.folder.path}, so none in the bundle; `vaekit svm {quoted}` makes one"
        )
    print(f"bundle: {target}   next: vaekit explore {quoted}", flush=True)
    return target


@contextmanager
def new_bundle(target: Path) -> Iterator[Path]:
    """A folder to build a bundle in; it takes the place of `target` if the block succeeds.

    Raises `UserError` at once where `target` holds anything but a bundle, or can't be replaced.
    """
    temporary, old = (target.with_name(f".{kind}-{target.name}") for kind in ("tmp", "old"))
    if old.exists() and not target.exists():
        old.rename(target)  # a process was killed between the two renames below
    _require_replaceable(target)
    _remove(temporary)
    _remove(old)
    temporary.mkdir()
    try:
        yield temporary
        fsync(temporary)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        fsync(target.parent)
    finally:
        _remove(temporary)
        if old.exists() and not target.exists():
            old.rename(target)
    try:
        _remove(old)
    except UserError as error:
        say(f"warning: {error}")


def describe_run(run: Run) -> dict[str, Any]:
    """What the manifest, and each graph, says of the run."""
    weights, rows = run.weights, run.metrics
    table = run.svm.table if run.has_svm else None
    return {
        "class_names": weights.class_names,
        "score_labels": None if table is None else table.classes.tolist(),
        "image": preparation(run.config.data, weights.vae.image_shape),
        "latent": {"dimensions": weights.vae.latent_dim, "prior": "standard normal"},
        "metrics": {
            "test_loss": kept_row(rows)["test_loss"] if rows else None,
            "svm_accuracy": run.svm_metrics["accuracy"] if run.has_svm else None,
        },
        "source": {
            "run": run.folder.path.resolve().name,
            "model_sha256": run.sha256("weights"),
            "svm_sha256": run.sha256("svm"),
            "images_sha256": weights.images_sha256,
        },
        "versions": {
            "vaekit": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }


def write_graphs(
    folder: Path, reference: Reference, metadata: dict[str, Any], stored_as: StoredWeights
) -> dict[str, Any]:
    """Write the graphs of `reference` into `folder`; what the manifest says of them."""
    signatures = {}
    for name, (module, inputs) in _modules(reference).items():
        print(f"exporting {name}", flush=True)
        model = to_onnx(module, inputs, OUTPUTS[name])
        if stored_as == "fp16":
            model = half.store_as_float16(model)
        describe(model, name, TEXTS[name], metadata)
        onnx.checker.check_model(model, full_check=True)
        write_bytes(folder / name, model.SerializeToString(deterministic=True))
        signatures[name] = signature(model)
    return {
        "opset": OPSET,
        "ir_version": model.ir_version,
        "weights": "float32" if stored_as == "fp32" else "float16",
        "graphs": signatures,
    }


def golden_cases(reference: Reference, pixels: NDArray[np.uint8]) -> list[GoldenCase]:
    """Inputs and outputs of each graph, of the test images that rounding relabels least."""
    expected = expect(reference, pixels[:MAX_BATCH])
    chosen = _most_decided(expected)
    mean, log_variance = expected.mean[chosen], expected.log_variance[chosen]
    cases = [
        _case(ENCODER, {"image": pixels[chosen]}, {"mean": mean, "log_variance": log_variance}),
        _case(DECODER, {"latent": mean}, {"image": expected.image[chosen]}),
    ]
    if expected.prediction is not None:
        labels, scores, decisions = (each[chosen] for each in expected.prediction)
        classified = {"label": labels, "scores": scores.astype(np.float32)}
        verdict = {**classified, "decisions": decisions.astype(np.float32)}
        cases += [
            _case(SVM, {"mean": mean, "log_variance": log_variance}, verdict),
            _case(CLASSIFIER, {"image": pixels[chosen]}, classified),
        ]
    return cases


def explorer_data(run: Run) -> dict[str, Any]:
    """Test images to pick from, and the map of the test latents."""
    pixels, labels, _ = run.images.test
    placed = latent_map(run.folder, run.latents) if run.has_latents else None
    shown = None
    if placed is not None:
        latents, num_dimensions = run.latents, run.weights.vae.latent_dim
        shown = {
            "method": "t-SNE",
            "points": _encoded(placed.points),
            "latents": _encoded(latents.test[placed.indices, :num_dimensions]),
            "labels": _listed(latents.test_labels, placed.indices),
        }
    first = np.arange(min(NUM_PICKED, len(pixels)))
    return {
        "format": "vaekit-explorer",
        "format_version": 1,
        "images": {**_encoded(pixels[first]), "labels": _listed(labels, first)},
        "map": shown,
    }


def readme(metadata: dict[str, Any]) -> str:
    """The bundle's own README, in Markdown."""
    environment = Environment(
        loader=PackageLoader("vaekit.export", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("README.md.jinja").render(metadata)


def _require_replaceable(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UserError(f"{target}: a file or a link, expected a folder; move it away")
    present = {path.name for path in target.iterdir()} if target.exists() else set()
    if present and MANIFEST not in present:
        raise UserError(
            f"{target}: holds something that is no bundle (no {MANIFEST}); move it away, for the "
            f"bundle goes there"
        )
    foreign = sorted(present - FILES)
    if foreign:
        raise UserError(
            f"{target / foreign[0]}: no part of the bundle that is there; move it away, for the "
            f"new bundle takes the place of the whole folder"
        )
    if present and not os.access(target, os.W_OK | os.X_OK):
        raise UserError(f"{target}: no permission to replace what is in it; chmod u+wx the folder")


def _remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if there is one."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: left over from an earlier bundle, and can't be removed ({error.strerror}); "
            f"remove it"
        ) from error


def _modules(reference: Reference) -> dict[str, tuple[nn.Module, dict[str, torch.Tensor]]]:
    """The modules of the graphs with examples of what they take."""
    vae, table = reference
    image = torch.zeros(2, *vae.image_shape, dtype=torch.uint8)
    latent = torch.zeros(2, vae.latent_dim)
    encoder = EncoderGraph(vae)
    modules: dict[str, tuple[nn.Module, dict[str, torch.Tensor]]] = {
        ENCODER: (encoder, {"image": image}),
        DECODER: (DecoderGraph(vae), {"latent": latent}),
    }
    if table is not None:
        svm = SvmGraph(table)
        modules[SVM] = (svm, {"mean": latent, "log_variance": latent.clone()})
        modules[CLASSIFIER] = (ClassifierGraph(encoder, svm), {"image": image})
    return modules


def _most_decided(expected: Expected) -> NDArray[np.int64]:
    """Rows of images, of each class the one whose decisions are furthest from 0; else the first.

    Where none of a class is clear of the tolerance the class has none, if another has.
    """
    if expected.prediction is None:
        return np.arange(min(NUM_GOLDEN, len(expected.mean)))
    labels, _, decisions = expected.prediction
    margins = np.abs(decisions).min(axis=1)
    of_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    rows = np.array([rows[margins[rows].argmax()] for rows in of_class])
    is_clear = margins[rows] > 2 * TOLERANCES["decisions"]
    chosen = rows[is_clear] if is_clear.any() else rows
    return np.sort(chosen[:NUM_GOLDEN])


def _case(graph: str, inputs: Arrays, outputs: Arrays) -> GoldenCase:
    return GoldenCase(graph, inputs, outputs, {name: TOLERANCES[name] for name in outputs})


def _encoded(array: NDArray[Any]) -> dict[str, Any]:
    little_endian = array.astype(array.dtype.newbyteorder("<"))
    data = base64.b64encode(little_endian.tobytes()).decode("ascii")
    return {"shape": list(array.shape), "data": data}


def _listed(labels: NDArray[np.int64] | None, rows: NDArray[np.int64]) -> list[int] | None:
    return None if labels is None else [int(label) for label in labels[rows]]
