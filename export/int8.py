"""The linear layers of encoder and decoder in eight bits: smaller and faster, at a stated cost.

Weights are rounded to seven bits and a sign a column, activations to eight for each batch as it
comes (onnxruntime's dynamic quantisation), so the numbers of an image depend a little on the batch
that it is in. Seven bits, since products of eight overflow on processors without VNNI.
Convolutions stay in float32, which is quicker for them, and so does the SVM, which loses its
accuracy in eight.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

from vaekit.errors import UserError
from vaekit.export.bounds import ACCURACY_BOUND, require_same_accuracy
from vaekit.export.compare import MAX_BATCH, Comparison, Reference, expect
from vaekit.export.manifest import CLASSIFIER, DECODER, ENCODER, GoldenCase
from vaekit.images.image_set import ImageSet
from vaekit.images.pixels import as_floats
from vaekit.progress import Progress

FLAG = "--weights int8"
QUANTISED = (ENCODER, DECODER, CLASSIFIER)
LINEAR = ["MatMul", "Gemm"]
OF_THE_SVM = "svm."  # how the names of its weights begin, also in the classifier
MAX_ERROR_GROWTH = 0.01  # of the reconstructions' squared error, on the test images


def quantise(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its linear layers in eight bits, but for those of the SVM."""
    of_the_svm = [
        node.name
        for node in model.graph.node
        if any(name.startswith(OF_THE_SVM) for name in node.input)
    ]
    # onnxruntime 1.22 transposes weights, and trips over the shapes that they had.
    initial = {each.name for each in model.graph.initializer}
    for each in [each for each in model.graph.value_info if each.name in initial]:
        model.graph.value_info.remove(each)
    # Without this note, which `describe` replaces, onnxruntime asks for shapes that are there.
    onnx.helper.set_model_props(model, {"onnx.infer": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantised.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=LINEAR,
            nodes_to_exclude=of_the_svm,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        quantised = onnx.load(path)
    quantised.ir_version = model.ir_version
    return quantised


def require_small_loss(bundle: Path, reference: Reference, test: ImageSet) -> dict[str, Any]:
    """What eight bits cost on the test images, for the manifest.

    In the squared error a pixel of the reconstruction from the mean, images in [0, 1], and in the
    SVM's accuracy. Raises `UserError` where it is beyond the bound.
    """
    encoder, decoder = (_session(bundle / name) for name in (ENCODER, DECODER))
    classifier = _session(bundle / CLASSIFIER) if reference.table is not None else None
    squares = np.zeros(2)
    right: list[NDArray[np.bool_]] = []  # which labels are right, in float32
    found: list[NDArray[np.bool_]] = []
    with Progress("measuring eight bits", len(test.pixels), "images") as bar:
        for start in range(0, len(test.pixels), MAX_BATCH):
            batch = slice(start, start + MAX_BATCH)
            pixels = test.pixels[batch]
            images = as_floats(torch.from_numpy(pixels)).numpy()
            exact = expect(reference, pixels)
            mean, _ = encoder.run(None, {"image": pixels})
            (of_int8,) = decoder.run(None, {"latent": mean})
            squares += [np.square(each - images).sum() for each in (exact.image, of_int8)]
            if exact.prediction is not None and classifier is not None and test.labels is not None:
                label, _ = classifier.run(None, {"image": pixels})
                right.append(exact.prediction.labels == test.labels[batch])
                found.append(label == test.labels[batch])
            bar.advance(len(pixels))
    float32, int8 = squares / test.pixels.size
    if not int8 <= float32 * (1 + MAX_ERROR_GROWTH):
        raise UserError(
            f"{FLAG}: the squared error of a reconstruction is {int8:.3g} a pixel, {float32:.3g} "
            f"with float32, over {MAX_ERROR_GROWTH:.0%} more; use fp16 or fp32"
        )
    loss: dict[str, Any] = {
        "bound": (
            f"at most {MAX_ERROR_GROWTH:.0%} more squared error of reconstructions, and "
            f"{ACCURACY_BOUND}"
        ),
        "unit": "squared error a pixel",
        "reconstruction": {"float32": float(float32), "int8": float(int8)},
    }
    if found:
        accuracies = require_same_accuracy(FLAG, np.concatenate(right), np.concatenate(found))
        loss["svm_accuracy"] = dict(zip(("float32", "int8"), accuracies, strict=True))
    return loss


def as_computed(bundle: Path, cases: list[GoldenCase], comparison: Comparison) -> list[GoldenCase]:
    """Golden vectors of what the quantised graphs give here.

    Elsewhere an activation near the border between two of 256 values may be rounded to the other:
    a runtime may be as far off as eight bits are from PyTorch, and a score by a vote.
    """
    return [
        _as_computed(bundle, case, comparison) if case.graph in QUANTISED else case
        for case in cases
    ]


def _as_computed(bundle: Path, case: GoldenCase, comparison: Comparison) -> GoldenCase:
    found = _session(bundle / case.graph).run(list(case.outputs), case.inputs)
    tolerances = {
        name: max(tolerance, comparison.worst[case.graph, name].difference)
        for name, tolerance in case.tolerances.items()
        if name not in ("label", "scores")
    }
    if "label" in case.outputs:
        scores = max(1.0, case.tolerances["scores"])
        tolerances |= {"label": case.tolerances["label"], "scores": scores}
    return case._replace(outputs=dict(zip(case.outputs, found, strict=True)), tolerances=tolerances)


def _session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
