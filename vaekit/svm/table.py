"""An RBF SVM as one table of arrays, and what it predicts."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError

# Shapes in comments: B batch, D features (twice the latent dimensions), S support vectors,
# K classes, P = K(K-1)/2 pairs of classes in the order (0, 1), (0, 2) ... (1, 2) ...
MAX_KERNEL_VALUES = 2**23  # 64 MiB of float64, whatever the number of images


@dataclass(frozen=True, eq=False)
class SvmTable:
    """A one-vs-one RBF SVM with the standardisation before it, as arrays (float64, int64).

    The layout is libsvm's (Chang and Lin, 2011): support vectors lie class by class; the
    coefficient of one of class i in its pair with class j is in row j - 1 where i < j, in
    row j where i > j.
    """

    feature_mean: NDArray[np.float64]  # [D]
    feature_scale: NDArray[np.float64]  # [D]
    support_vectors: NDArray[np.float64]  # [S, D], standardised
    dual_coefficients: NDArray[np.float64]  # [K-1, S]
    num_support: NDArray[np.int64]  # [K]
    intercepts: NDArray[np.float64]  # [P]
    gamma: float  # of exp(-gamma * squared distance of standardised latents)
    classes: NDArray[np.int64]  # [K], rising; indices into the class names


class Prediction(NamedTuple):
    """Labels, and the figures behind them as in scikit-learn's SVC.

    `decisions` are continuous; with two classes a positive one speaks for the second, with
    more a positive one speaks for the first class of its pair. `scores` are votes plus the
    squashed sum of decisions: they rank classes and are no probabilities.
    """

    labels: NDArray[np.int64]  # [B]
    scores: NDArray[np.float64]  # [B, K]
    decisions: NDArray[np.float64]  # [B, P]


def predict(table: SvmTable, latents: NDArray[np.float32]) -> Prediction:
    """Classify `latents` [B, D] in float64; labels equal those of `SVC(break_ties=True)`.

    Raises `UserError` for latents that are not finite.
    """
    require_finite(latents, "latents")
    coefficients = pair_coefficients(table)
    decisions = np.empty((len(latents), len(table.intercepts)))
    step = max(1, MAX_KERNEL_VALUES // len(table.support_vectors))
    for start in range(0, len(latents), step):
        chunk = latents[start : start + step]
        features = standardise(chunk, table.feature_mean, table.feature_scale)
        kernel = _rbf_kernel(features, table.support_vectors, table.gamma)
        decisions[start : start + step] = kernel @ coefficients + table.intercepts
    scores = _scores(decisions, len(table.classes))
    return Prediction(table.classes[scores.argmax(axis=1)], scores, decisions)


def pair_coefficients(table: SvmTable) -> NDArray[np.float64]:
    """The weight [S, P] of each support vector in the decision of each pair of classes."""
    ends = np.cumsum(table.num_support)
    of_class = [slice(end - num, end) for end, num in zip(ends, table.num_support, strict=True)]
    weights = np.zeros((len(table.support_vectors), len(table.intercepts)))
    for pair, (i, j) in enumerate(zip(*np.triu_indices(len(table.classes), k=1), strict=True)):
        weights[of_class[i], pair] = table.dual_coefficients[j - 1, of_class[i]]
        weights[of_class[j], pair] = table.dual_coefficients[i, of_class[j]]
    return weights


def pair_signs(num_classes: int) -> NDArray[np.float64]:
    """For which class of its pair a positive decision speaks (+1) or against (-1): [P, K].

    scikit-learn turns the sign round where there are only two classes.
    """
    first, second = np.triu_indices(num_classes, k=1)
    signs = np.eye(num_classes)[first] - np.eye(num_classes)[second]
    return -signs if num_classes == 2 else signs


def fault_of_arrays(arrays: Mapping[str, NDArray[Any]], num_class_names: int) -> str | None:
    """What keeps `arrays` from being an SvmTable of these classes, if anything does."""
    names = [field.name for field in fields(SvmTable)]
    if sorted(arrays) != sorted(names):
        return f"holds the tensors {sorted(arrays)}, expected {sorted(names)}"
    for name, array in arrays.items():
        dtype = np.dtype(np.int64 if name in ("num_support", "classes") else np.float64)
        if array.dtype != dtype:
            return f"{name} is {array.dtype}, expected {dtype}"
    num_features = arrays["feature_mean"].size
    num_vectors = arrays["support_vectors"].size // max(num_features, 1)
    num_classes = arrays["classes"].size
    shapes = {
        "feature_mean": (num_features,),
        "feature_scale": (num_features,),
        "support_vectors": (num_vectors, num_features),
        "dual_coefficients": (num_classes - 1, num_vectors),
        "num_support": (num_classes,),
        "intercepts": (num_classes * (num_classes - 1) // 2,),
        "gamma": (),
        "classes": (num_classes,),
    }
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape:
            return f"{name} is {array.shape}, expected {shape}"
        if not np.isfinite(array).all():
            return f"{name} has values that are not finite"
    classes = arrays["classes"]
    if num_classes < 2 or not (np.diff(classes, prepend=-1, append=num_class_names) > 0).all():
        return f"classes are {classes.tolist()}, expected indices into {num_class_names} names"
    num_support = arrays["num_support"].tolist()  # whose sum can't overflow
    if min(num_support) < 1 or sum(num_support) != num_vectors:
        return f"num_support does not part {num_vectors} support vectors into {num_classes} classes"
    if not ((arrays["feature_scale"] > 0).all() and arrays["gamma"] > 0):
        return "feature_scale or gamma is not above 0"
    return None


def standardise(
    latents: NDArray[np.float32], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    return (latents - mean) / scale


def _rbf_kernel(
    features: NDArray[np.float64], support_vectors: NDArray[np.float64], gamma: float
) -> NDArray[np.float64]:
    """exp(-gamma |x - s|^2) as [B, S], of |x|^2 - 2 x.s + |s|^2 so that a GEMM does the work."""
    kernel: NDArray[np.float64] = features @ (2 * support_vectors.T)
    kernel -= np.square(features).sum(axis=1, keepdims=True)
    kernel -= np.square(support_vectors).sum(axis=1)
    kernel *= gamma
    np.exp(kernel, out=kernel)
    return kernel


def _scores(decisions: NDArray[np.float64], num_classes: int) -> NDArray[np.float64]:
    """Votes [B, K] plus the sum of a class's decisions squashed into (-1/3, 1/3).

    The squash breaks ties between votes and outweighs none, as in scikit-learn's
    one-vs-rest shape.
    """
    signs = pair_signs(num_classes)
    wins_less_losses = np.where(decisions >= 0, 1.0, -1.0) @ signs
    votes = (wins_less_losses + num_classes - 1) / 2
    confidences: NDArray[np.float64] = decisions @ signs
    scores: NDArray[np.float64] = votes + confidences / (3 * (np.abs(confidences) + 1))
    return scores


def require_finite(latents: NDArray[np.float32], name: str) -> None:
    num_bad = len(latents) - np.isfinite(latents).all(axis=1).sum()
    if num_bad:
        raise UserError(
            f"{name}: {num_bad:,} of {len(latents):,} rows are not finite (NaN or infinite); "
            f"train again, with a lower --learning_rate"
        )
