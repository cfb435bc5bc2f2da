"""An RBF SVM as one table of arrays, and what it predicts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.storage.arrays import blocks_of_rows

# Shapes in comments: B batch, D features (twice the latent dimensions), S support vectors,
# K classes, P = K(K-1)/2 pairs of classes in the order (0, 1), (0, 2) ... (1, 2) ...
MAX_VALUES = 2**22  # 32 MiB of float64 at a time, whatever the number of images and classes


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
    """Labels, and scores as scikit-learn's SVC has them: votes plus the squashed sum of decisions.

    Scores rank classes and are no probabilities.
    """

    labels: NDArray[np.int64]  # [B]
    scores: NDArray[np.float64]  # [B, K]


def predict(table: SvmTable, latents: NDArray[np.floating]) -> Prediction:
    """Classify `latents` [B, D] in float64; labels equal those of `SVC(break_ties=True)`.

    Raises `UserError` for latents that are not finite.
    """
    require_finite(latents, "latents")
    of_chunks = [_scores(chunk) for chunk in margins(table, latents)]
    scores = np.concatenate(of_chunks) if of_chunks else np.empty((0, len(table.classes)))
    return Prediction(table.classes[scores.argmax(axis=1)], scores)


def predict_labels(table: SvmTable, latents: NDArray[np.floating]) -> NDArray[np.int64]:
    """The labels alone [B] of finite `latents` [B, D]: without the scores of all images at once."""
    best = np.concatenate([_scores(chunk).argmax(axis=1) for chunk in margins(table, latents)])
    labels: NDArray[np.int64] = table.classes[best]
    return labels


def margins(table: SvmTable, latents: NDArray[np.floating]) -> Iterator[NDArray[np.float64]]:
    """By how much the first class beats the second: [K, K] of each of the `latents` [B, D].

    They are SVC's decisions, of every pair in both orders, of some images at a time: the chunks
    are moderate arrays, however many images and classes there are.
    """
    num_classes, weights = len(table.classes), class_weights(table)
    intercepts = margin_intercepts(table)
    step = max(1, MAX_VALUES // max(len(table.support_vectors), num_classes**2))
    for start in range(0, len(latents), step):
        chunk = latents[start : start + step]
        features = standardise(chunk, table.feature_mean, table.feature_scale)
        kernel = _rbf_kernel(features, table.support_vectors, table.gamma)
        spoken_for = np.empty((len(chunk), num_classes, num_classes))
        for k, of_class in enumerate(_rows_of_classes(table)):
            spoken_for[:, k] = kernel[:, of_class] @ weights[k]
        yield spoken_for - spoken_for.swapaxes(1, 2) + intercepts


def decisions(table: SvmTable, latents: NDArray[np.floating]) -> NDArray[np.float64]:
    """SVC's decisions [B, P] of finite `latents` [B, D].

    With two classes a positive one speaks for the second, with more for the first of its pair.
    """
    num_classes = len(table.classes)
    first, second = np.triu_indices(num_classes, k=1)
    of_chunks = [chunk[:, first, second] for chunk in margins(table, latents)]
    of_pairs = np.concatenate(of_chunks) if of_chunks else np.empty((0, len(first)))
    return pair_sign(num_classes) * of_pairs


def class_weights(table: SvmTable) -> list[NDArray[np.float64]]:
    """What each class's support vectors say for it and against every other one: K of [S_k, K]."""
    num_classes = len(table.classes)
    sign = pair_sign(num_classes)
    weights = []
    for k, of_class in enumerate(_rows_of_classes(table)):
        of_pairs = sign * table.dual_coefficients[:, of_class].T
        of_pairs[:, :k] *= -1  # there it is the second of the pair
        weights.append(np.insert(of_pairs, k, 0.0, axis=1))
    return weights


def margin_intercepts(table: SvmTable) -> NDArray[np.float64]:
    """What is added to the margins of every image: [K, K]."""
    num_classes = len(table.classes)
    intercepts = np.zeros((num_classes, num_classes))
    intercepts[np.triu_indices(num_classes, k=1)] = pair_sign(num_classes) * table.intercepts
    return intercepts - intercepts.T


def pair_sign(num_classes: int) -> float:
    """1 where a positive decision of SVC speaks for the first class of its pair, -1 for the second.

    scikit-learn turns it round where there are only two classes.
    """
    return -1.0 if num_classes == 2 else 1.0


def ties_for(num_classes: int) -> NDArray[np.bool_]:
    """Which class gets the vote of a pair whose decision is 0, as with SVC: [K, K]."""
    every_pair = np.ones((num_classes, num_classes), bool)
    return np.tril(every_pair, -1) if num_classes == 2 else np.triu(every_pair, 1)


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
    latents: NDArray[np.floating], mean: NDArray[np.float64], scale: NDArray[np.float64]
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


def _scores(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Votes [B, K] plus the sum of a class's margins squashed into (-1/3, 1/3).

    The squash breaks ties between votes and outweighs none, as in scikit-learn's
    one-vs-rest shape.
    """
    wins = (margins > 0) | ((margins == 0) & ties_for(margins.shape[1]))
    confidences = margins.sum(axis=2)
    scores: NDArray[np.float64] = wins.sum(axis=2) + confidences / (3 * (np.abs(confidences) + 1))
    return scores


def _rows_of_classes(table: SvmTable) -> list[slice]:
    """Where the support vectors of each class lie."""
    ends = np.cumsum(table.num_support)
    return [slice(end - num, end) for end, num in zip(ends, table.num_support, strict=True)]


def require_finite(latents: NDArray[np.floating], name: str) -> None:
    num_bad = sum(
        int((~np.isfinite(latents[block]).all(axis=1)).sum())
        for block in blocks_of_rows(*latents.shape)
    )
    if num_bad:
        raise UserError(
            f"{name}: {num_bad:,} of {len(latents):,} rows are not finite (NaN or infinite); "
            f"train again, with a lower --learning_rate"
        )
