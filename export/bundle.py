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
from numpy.typing import NDArray
from torch import nn

from vaekit import __version__
from vaekit.errors import UserError, say
from vaekit.export import float16 as half
from vaekit.export import int8, triton
from vaekit.export.compare import (
    MAX_BATCH,
    Clarity,
    Comparison,
    Reference,
    clarity,
    compare,
    expect,
    tolerances,
)
from vaekit.export.graphs import (
    OPSET,
    Classification,
    ClassifierGraph,
    DecoderGraph,
    EncoderGraph,
    Verdict,
    is_pairwise,
    svm_graph,
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
from vaekit.images.mapped import PixelArray
from vaekit.models.gaussian import Posterior
from vaekit.report.embedding import render
from vaekit.report.map import latent_map
from vaekit.runs.run import Run
from vaekit.storage.files import fsync, write_bytes, write_json, write_text
from vaekit.svm.table import decisions
from vaekit.training.state import kept_row

StoredWeights = Literal["fp32", "fp16", "int8"]

FOLDERS: dict[StoredWeights, str] = {"fp32": "onnx", "fp16": "onnx-fp16", "int8": "onnx-int8"}
TYPES: dict[StoredWeights, str] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
Inputs = dict[str, torch.Tensor]
NUM_GOLDEN = 10
NUM_PICKED = 100  # test images that the explorer offers
EXPLORER = "explorer.json"
README = "README.md"
GRAPHS = (ENCODER, DECODER, SVM, CLASSIFIER)
FILES = {
    *GRAPHS,
    *(triton.config_name(graph) for graph in GRAPHS),
    triton.LABELS,
    MANIFEST,
    GOLDEN,
    EXPLORER,
    README,
}

TEXTS = {
    ENCODER: "Images to the diagonal Gaussian over their latents: its mean and log-variance.",
    DECODER: "Latents to images: the means of the pixels, from 0 to 1.",
    SVM: (
        "The mean and log-variance of latents to a label: standardisation and a one-vs-one RBF SVM."
    ),
    CLASSIFIER: "Images to a label: the encoder and the SVM in one graph.",
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
        comparison = write_sound_graphs(folder, reference, metadata, test.pixels, weights)
        svm_fault = comparison.fault((SVM, CLASSIFIER))
        if svm_fault is not None:
            for graph in (SVM, CLASSIFIER):
                (folder / graph).unlink()
            reference, metadata = reference._replace(table=None), without_svm(metadata)
            comparison = write_sound_graphs(folder, reference, metadata, test.pixels, weights)
        golden = golden_cases(reference, test.pixels)
        if weights == "int8":
            metadata["weights_loss"] = int8.require_small_loss(folder, reference, test)
            golden = int8.as_computed(folder, golden, comparison)
        metadata["check"] = comparison.metadata()
        write_golden(folder, golden)
        write_json(folder / EXPLORER, explorer)
        write_for_triton(folder, metadata)
        write_text(folder / README, readme(metadata))
        write_manifest(folder, metadata)
        verify(folder)
    print(comparison.summary())
    quoted = run.folder.quoted
    if svm_fault is not None:
        raise UserError(
            f"{svm_fault}; the bundle {target} has the encoder and the decoder alone: fit an SVM "
            f"that leans less on single images, as with `vaekit svm {quoted} --C 1`, and export "
            f"again"
        )
    if test.labels is None:
        print("the images have no labels, so the bundle has no SVM")
    elif reference.table is None:
        print(
            f"no SVM in {run.folder.path}, so none in the bundle; `vaekit svm {quoted}` makes one"
        )
    print(f"bundle: {target}   next: vaekit explore {quoted}", flush=True)
    return target


def write_sound_graphs(
    folder: Path,
    reference: Reference,
    metadata: dict[str, Any],
    pixels: PixelArray,
    stored_as: StoredWeights,
) -> Comparison:
    """Write the graphs, note them in `metadata`, and compare them on all `pixels`.

    Raises `UserError` where the encoder or the decoder is beyond its tolerance.
    """
    metadata |= write_graphs(folder, reference, metadata, stored_as)
    rounded = int8.QUANTISED if stored_as == "int8" else ()
    comparison = compare(folder, reference, pixels, rounded)
    if fault := comparison.fault((ENCODER, DECODER)):
        raise UserError(f"{fault}; no bundle was written, one that was there is as it was")
    return comparison


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


def without_svm(metadata: dict[str, Any]) -> dict[str, Any]:
    """`metadata` as if the run had none."""
    return metadata | {
        "score_labels": None,
        "metrics": metadata["metrics"] | {"svm_accuracy": None},
        "source": metadata["source"] | {"svm_sha256": None},
    }


def write_graphs(
    folder: Path, reference: Reference, metadata: dict[str, Any], stored_as: StoredWeights
) -> dict[str, Any]:
    """Write the graphs of `reference` into `folder`; what the manifest says of them."""
    signatures = {}
    for name, (module, inputs, outputs) in _modules(reference).items():
        print(f"exporting {name}", flush=True)
        model = to_onnx(module, inputs, outputs)
        if stored_as == "fp16":
            model = half.store_as_float16(model)
        elif stored_as == "int8" and name in int8.QUANTISED:
            model = int8.quantise(model)
        describe(model, name, TEXTS[name], metadata)
        onnx.checker.check_model(model, full_check=True)
        write_bytes(folder / name, model.SerializeToString(deterministic=True))
        signatures[name] = signature(model)
    return {
        "opset": OPSET,
        "ir_version": model.ir_version,
        "weights": TYPES[stored_as],
        "graphs": signatures,
    }


def golden_cases(reference: Reference, pixels: PixelArray) -> list[GoldenCase]:
    """Inputs and outputs of each graph, of the test images that rounding relabels least."""
    expected = expect(reference, pixels[:MAX_BATCH])
    table, prediction = reference.table, expected.prediction
    largest = tolerances(table)
    if table is None or prediction is None:
        chosen = np.arange(min(NUM_GOLDEN, len(expected.mean)))
    else:
        clear = clarity(table, expected.latents, 2 * largest["decisions"])
        chosen = _clearest(prediction.labels, clear)
        largest["scores"] += float(clear.open_votes[chosen].max())
        if not clear.decided[chosen].all():
            largest["label"] = float(np.ptp(table.classes))

    def case(graph: str, inputs: Arrays, outputs: Arrays) -> GoldenCase:
        return GoldenCase(graph, inputs, outputs, {name: largest[name] for name in outputs})

    mean, log_variance = expected.mean[chosen], expected.log_variance[chosen]
    cases = [
        case(ENCODER, {"image": pixels[chosen]}, {"mean": mean, "log_variance": log_variance}),
        case(DECODER, {"latent": mean}, {"image": expected.image[chosen]}),
    ]
    if table is not None and prediction is not None:
        scores = prediction.scores[chosen].astype(np.float32)
        classified: Arrays = {"label": prediction.labels[chosen], "scores": scores}
        verdict = classified
        if is_pairwise(table):
            of_pairs = decisions(table, expected.latents[chosen])
            verdict = {**classified, "decisions": of_pairs.astype(np.float32)}
        cases += [
            case(SVM, {"mean": mean, "log_variance": log_variance}, verdict),
            case(CLASSIFIER, {"image": pixels[chosen]}, classified),
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


def write_for_triton(folder: Path, metadata: dict[str, Any]) -> None:
    """The configuration of each graph, and the class names, where there are any, as text."""
    class_names, score_labels = metadata["class_names"], metadata["score_labels"]
    if class_names:
        write_text(folder / triton.LABELS, triton.labels_text(class_names))
    is_of_labels = bool(class_names) and score_labels == list(range(len(class_names)))
    for name, graph in metadata["graphs"].items():
        config = triton.model_config(graph, scores_are_of_labels=is_of_labels)
        write_text(folder / triton.config_name(name), config)


def readme(metadata: dict[str, Any]) -> str:
    """The bundle's own README, in Markdown."""
    return render("vaekit.export", "README.md.jinja", metadata)


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


def _modules(reference: Reference) -> dict[str, tuple[nn.Module, Inputs, tuple[str, ...]]]:
    """The modules of the graphs, examples of what they take, and the names of what they give."""
    vae, table = reference
    image = torch.zeros(2, *vae.image_shape, dtype=torch.uint8)
    latent = torch.zeros(2, vae.latent_dim)
    encoder = EncoderGraph(vae)
    modules: dict[str, tuple[nn.Module, Inputs, tuple[str, ...]]] = {
        ENCODER: (encoder, {"image": image}, Posterior._fields),
        DECODER: (DecoderGraph(vae), {"latent": latent}, ("image",)),
    }
    if table is not None:
        svm = svm_graph(table)
        gives = (Verdict if is_pairwise(table) else Classification)._fields
        modules[SVM] = (svm, {"mean": latent, "log_variance": latent.clone()}, gives)
        modules[CLASSIFIER] = (
            ClassifierGraph(encoder, svm),
            {"image": image},
            Classification._fields,
        )
    return modules


def _clearest(labels: NDArray[np.int64], clear: Clarity) -> NDArray[np.int64]:
    """Rows of images, of each class the clearest: no vote open, or decided at least.

    Where none of a class is as clear as one of another class, it has none.
    """
    degrees = clear.decided.astype(int) + (clear.decided & (clear.open_votes == 0))
    order = np.lexsort((-clear.smallest, -degrees))  # the clearest first
    _, firsts = np.unique(labels[order], return_index=True)
    rows = order[firsts]
    return np.sort(rows[degrees[rows] == degrees[rows].max()][:NUM_GOLDEN])


def _encoded(array: NDArray[Any]) -> dict[str, Any]:
    little_endian = array.astype(array.dtype.newbyteorder("<"))
    data = base64.b64encode(little_endian.tobytes()).decode("ascii")
    return {"shape": list(array.shape), "data": data}


def _listed(labels: NDArray[np.int64] | None, rows: NDArray[np.int64]) -> list[int] | None:
    return None if labels is None else [int(label) for label in labels[rows]]
