"""Weights stored as float16 and computed with as float32: half the size."""

import copy
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vaekit.errors import UserError
from vaekit.export.bounds import ACCURACY_BOUND, require_same_accuracy
from vaekit.export.compare import MAX_BATCH, Reference
from vaekit.images.image_set import ImageSet
from vaekit.images.pixels import as_floats
from vaekit.progress import Progress
from vaekit.svm.table import predict

FLAG = "--weights fp16"
MIN_VALUES = 1024  # a smaller tensor is not worth a node

# What rounding may cost at most, on the test images.
MAX_RECONSTRUCTION_LOSS = 1e-3  # of the reconstruction's own nats
MAX_NATS_LOST = 1e-2  # or so many, where that is more: nats of densities may be near 0 or below


class _Quality(NamedTuple):
    nats: float  # per image, of the reconstruction from the mean
    is_right: NDArray[np.bool_] | None  # [N]: the SVM's label of each image; None without one


def round_weights(reference: Reference, test: ImageSet) -> tuple[Reference, dict[str, Any]]:
    """`reference` with every weight of its VAE one that float16 holds, and what that costs.

    The cost is in reconstruction (nats per image, of the mean) and in the SVM's accuracy.
    Raises `UserError` where it is beyond the bound.
    """
    rounded = reference._replace(vae=copy.deepcopy(reference.vae).half().float())
    exact, found = _measure(reference, test), _measure(rounded, test)
    allowed = max(MAX_RECONSTRUCTION_LOSS * abs(exact.nats), MAX_NATS_LOST)
    if not found.nats <= exact.nats + allowed:
        raise UserError(
            f"{FLAG}: the reconstruction takes {found.nats:.2f} nats per image, "
            f"{exact.nats:.2f} with float32, over {MAX_RECONSTRUCTION_LOSS:.1%} more; use fp32"
        )
    loss: dict[str, Any] = {
        "bound": (
            f"at most {MAX_RECONSTRUCTION_LOSS:.1%} more nats of reconstruction, and "
            f"{ACCURACY_BOUND}"
        ),
        "unit": "nats per image",
        "reconstruction": {"float32": exact.nats, "float16": found.nats},
    }
    if exact.is_right is not None and found.is_right is not None:
        accuracies = require_same_accuracy(FLAG, exact.is_right, found.is_right)
        loss["svm_accuracy"] = dict(zip(("float32", "float16"), accuracies, strict=True))
    return rounded, loss


def store_as_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the weights that float16 holds exactly as float16, each cast to float32 by a node.

    Nothing is rounded here: a weight that float16 can't hold stays as it is. onnxruntime casts
    once, when it loads the graph.
    """
    stored = onnx.ModelProto()
    stored.CopyFrom(model)
    casts = []
    for weight in stored.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < MIN_VALUES:
            continue
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.array_equal(halves, values):
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(halves, f"{name}.float16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *stored.graph.node]
    del stored.graph.node[:]
    stored.graph.node.extend(nodes)
    return stored


@torch.inference_mode()
def _measure(reference: Reference, test: ImageSet) -> _Quality:
    vae, table = reference
    count, nats, is_right = len(test.pixels), 0.0, []
    with Progress("measuring the weights", count, "images") as bar:
        for start in range(0, count, MAX_BATCH):
            batch = slice(start, start + MAX_BATCH)
            images = as_floats(torch.from_numpy(test.pixels[batch]))
            # Without noise the latents are the means.
            output = vae(images, torch.zeros(len(images), vae.latent_dim))
            nats += vae.bound(output, images).reconstruction.sum().item()
            if table is not None and test.labels is not None:
                latents = torch.cat(output.posterior, dim=1).numpy()
                is_right.append(predict(table, latents).labels == test.labels[batch])
            bar.advance(len(images))
    return _Quality(nats / count, np.concatenate(is_right) if is_right else None)
