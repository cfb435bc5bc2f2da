"""Weights stored as float16 and computed with as float32: half the size."""

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vaekit.errors import UserError
from vaekit.export.compare import MAX_BATCH, Reference
from vaekit.images.pixels import as_floats
from vaekit.images.sets import ImageSet
from vaekit.progress import Progress
from vaekit.svm.table import predict

MIN_VALUES = 1024  # a smaller tensor is not worth a node

# What rounding may cost at most, on the test images.
MAX_RECONSTRUCTION_LOSS = 1e-3  # of the reconstruction's own nats
MAX_ACCURACY_LOSS = 1e-3  # or what chance explains, where that is more

# Rounding moves images near a border between classes to either side, as chance has it. More than
# three standard errors come about so once in 700 exports.
MAX_STANDARD_ERRORS = 3.0


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
    if not found.nats <= exact.nats * (1 + MAX_RECONSTRUCTION_LOSS):
        raise UserError(
            f"--weights fp16: the reconstruction takes {found.nats:.2f} nats per image, "
            f"{exact.nats:.2f} with float32, over {MAX_RECONSTRUCTION_LOSS:.1%} more; use fp32"
        )
    loss: dict[str, Any] = {
        "bound": (
            f"at most {MAX_RECONSTRUCTION_LOSS:.1%} more nats of reconstruction, and at most "
            f"{MAX_ACCURACY_LOSS:.1%} less accuracy or {MAX_STANDARD_ERRORS:g} standard errors of "
            f"the difference, whichever is more"
        ),
        "reconstruction": {"float32": exact.nats, "float16": found.nats},
    }
    if exact.is_right is not None and found.is_right is not None:
        require_same_accuracy(exact.is_right, found.is_right)
        loss["svm_accuracy"] = {
            "float32": float(exact.is_right.mean()),
            "float16": float(found.is_right.mean()),
        }
    return rounded, loss


def require_same_accuracy(exact: NDArray[np.bool_], found: NDArray[np.bool_]) -> None:
    """Raise `UserError` where fewer images [N] are right in `found`, and chance can't explain it.

    Only images that are right in one of the two tell anything. If rounding did no harm, as many
    would become right as wrong, and their difference have the variance of their sum (McNemar,
    Psychometrika 12, 1947).
    """
    became_wrong, became_right = int((exact & ~found).sum()), int((~exact & found).sum())
    num_lost = became_wrong - became_right
    by_chance = MAX_STANDARD_ERRORS * math.sqrt(became_wrong + became_right)
    if num_lost > max(MAX_ACCURACY_LOSS * len(exact), by_chance):
        raise UserError(
            f"--weights fp16: SVM accuracy {found.mean():.4f}, {exact.mean():.4f} with float32: "
            f"{became_wrong:,} of {len(exact):,} images became wrong and {became_right:,} right, "
            f"more than chance explains; use fp32"
        )


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
