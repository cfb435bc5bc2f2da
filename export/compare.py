"""The graphs of a bundle in onnxruntime against PyTorch and the SVM table, on held-out images."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from vaekit.export.manifest import CLASSIFIER, DECODER, ENCODER, SVM, Arrays, excess
from vaekit.images.mapped import PixelArray
from vaekit.images.pixels import as_floats
from vaekit.models.vae import VAE
from vaekit.progress import Progress
from vaekit.svm.table import Prediction, SvmTable, decisions, margins, predict

BATCH_SIZES = (1, 2, 7)  # tried on the first images; then all images in batches of MAX_BATCH
MAX_BATCH = 1000

# Largest absolute difference, of all runs and of well fitted tables.
TOLERANCES = {
    "mean": 1e-4,
    "log_variance": 1e-4,
    "image": 1e-4,
    "decisions": 1e-3,
    "scores": 1e-3,
    "label": 0.0,
}
ROUNDING = 2.0**-24  # of float32
ROUNDINGS = 16  # of a kernel value, at the least


class Reference(NamedTuple):
    """What the graphs must compute."""

    vae: VAE
    table: SvmTable | None


class Expected(NamedTuple):
    """The outputs of PyTorch and of the SVM table for a batch of images."""

    mean: NDArray[np.float32]  # [B, L]
    log_variance: NDArray[np.float32]  # [B, L]
    image: NDArray[np.float32]  # [B, C, H, W]: the mean, decoded
    prediction: Prediction | None

    @property
    def latents(self) -> NDArray[np.float32]:
        """What the SVM takes, [B, 2L]."""
        return np.concatenate([self.mean, self.log_variance], axis=1)


class Clarity(NamedTuple):
    """How sure the labels of B images are, where decisions may be off by a tolerance."""

    decided: NDArray[np.bool_]  # [B], whether no such change gives another label
    open_votes: NDArray[np.int64]  # [B], so many votes of one class may change, at most
    smallest: NDArray[np.float64]  # [B], of the decisions' sizes


@dataclass
class Worst:
    """The largest difference of one output, and where it was seen."""

    graph: str
    output: str
    difference: float = 0.0
    image: int = 0
    batch_size: int = 0

    def see(self, differences: NDArray[np.float64], start: int) -> None:
        """Take in the differences [B] of a batch whose first image is `start`; NaN is largest."""
        row = int(differences.argmax())
        if differences[row] > self.difference or np.isnan(differences[row]):
            self.difference, self.image = float(differences[row]), start + row
            self.batch_size = len(differences)


@dataclass
class Comparison:
    """What a bundle was measured to do on `num_images` held-out images.

    Of graphs that are `rounded` the differences are told, and held to no tolerance. An image is
    undecided where the tolerance of the decisions could change its label, and
    relabelled where that, or more, has happened.
    """

    num_images: int
    tolerances: dict[str, float]
    rounded: Container[str] = ()
    worst: dict[tuple[str, str], Worst] = field(default_factory=dict)
    undecided: set[int] = field(default_factory=set)
    relabelled: set[int] = field(default_factory=set)

    def see(self, graph: str, output: str, differences: NDArray[np.float64], start: int) -> None:
        worst = self.worst.setdefault((graph, output), Worst(graph, output))
        worst.see(differences, start)

    def metadata(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "num_images": self.num_images,
            "batch_sizes": [*BATCH_SIZES, MAX_BATCH],
            "largest_differences": {
                f"{worst.graph} {worst.output}": worst.difference for worst in self.worst.values()
            },
            "tolerances": self.tolerances,
            "undecided_images": sorted(self.undecided),
            "relabelled_images": sorted(self.relabelled),
        }

    def summary(self) -> str:
        """What was found, on a few lines for people."""
        lines = [
            f"{worst.graph:<16} {worst.output:<13} off by {worst.difference:.1e} at most "
            f"({self._held_to(worst)})"
            for worst in self.worst.values()
        ]
        labels = (
            f"; {len(self.undecided)} within the tolerance of another label, "
            f"{len(self.relabelled)} labelled otherwise"
        )
        has_svm = (SVM, "label") in self.worst
        lines.append(f"on {self.num_images:,} test images{labels if has_svm else ''}")
        return "\n".join(lines)

    def _held_to(self, worst: Worst) -> str:
        if worst.graph in self.rounded:
            return "rounded to eight bits"
        return f"tolerance {self.tolerances[worst.output]:.0e}"

    def fault(self, graphs: Container[str]) -> str | None:
        """What is furthest beyond its tolerance in these graphs, if anything is."""
        held = [
            each
            for each in self.worst.values()
            if each.graph in graphs and each.graph not in self.rounded
        ]
        if not held:
            return None
        worst = max(held, key=lambda each: excess(each.difference, self.tolerances[each.output]))
        tolerance = self.tolerances[worst.output]
        if worst.difference <= tolerance:
            return None
        return (
            f"{worst.graph}: {worst.output} differs by {worst.difference:.3g} from what PyTorch "
            f"and the SVM table give, the tolerance is {tolerance:.3g} (test image {worst.image}, "
            f"in a batch of {worst.batch_size})"
        )


def compare(
    bundle: Path,
    reference: Reference,
    pixels: PixelArray,
    rounded: Container[str] = (),
) -> Comparison:
    """Run every graph on every image [N, C, H, W], and the first ones at odd batch sizes too."""
    sessions = {path.name: onnxruntime.InferenceSession(path) for path in bundle.glob("*.onnx")}
    comparison = Comparison(len(pixels), tolerances(reference.table), rounded)
    batches = list(_batches(len(pixels)))
    total = sum(batch.stop - batch.start for batch in batches)
    with Progress("comparing with PyTorch", total, "images") as bar:
        for batch in batches:
            images = pixels[batch]
            expected = expect(reference, images)
            outputs = _run(sessions, images, expected)
            _compare_batch(comparison, outputs, expected, reference, batch.start)
            bar.advance(len(images))
    return comparison


@torch.inference_mode()
def expect(reference: Reference, pixels: NDArray[np.uint8]) -> Expected:
    """What the graphs must give for images [B, C, H, W]."""
    posterior = reference.vae.encode(as_floats(torch.from_numpy(pixels)))
    image = reference.vae.decode(posterior.mean).numpy()
    mean, log_variance = posterior.mean.numpy(), posterior.log_variance.numpy()
    expected = Expected(mean, log_variance, image, None)
    if reference.table is None:
        return expected
    return expected._replace(prediction=predict(reference.table, expected.latents))


def tolerances(table: SvmTable | None) -> dict[str, float]:
    """How far off each output may be, with an SVM of this table.

    A decision is a sum of weights times kernel values, so its error grows with the sum of the
    weights' sizes, which a large C or classes that overlap make large. Rounding moves the exponent
    of a kernel value near a support vector s by up to 4 gamma |s|^2 units. A score moves by a third
    of what the decisions of a class do together; it jumps where a decision changes its sign, and is
    compared where none is within its tolerance of 0.
    """
    if table is None:
        return dict(TOLERANCES)
    squares = np.square(table.support_vectors).sum(axis=1)
    errors = np.abs(table.dual_coefficients) * (ROUNDINGS + 4 * table.gamma * squares) * ROUNDING
    starts = np.cumsum(table.num_support) - table.num_support
    # Of the support vectors of each class in each of its pairs: [K-1, K].
    of_classes = np.add.reduceat(errors, starts, axis=1)
    decisions = max(TOLERANCES["decisions"], float(2 * of_classes.max()))
    num_others = len(table.classes) - 1
    scores = max(TOLERANCES["scores"], num_others * decisions / 3 + num_others * ROUNDING)
    return TOLERANCES | {"decisions": decisions, "scores": scores}


def is_decided(margins: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Whether no change of `margins` [B, K, K] by up to `tolerance` could change the label: [B].

    The winner has more votes at least than any other class at most, or as many and surely the
    greater sum of margins.
    """
    num_others = margins.shape[1] - 1
    confidences, change = margins.sum(axis=2), num_others * tolerance
    least_votes = (margins > tolerance).sum(axis=2)
    most_votes = num_others - (margins < -tolerance).sum(axis=2)
    least_confidences = confidences - change
    # Confidences are squashed into less than half a vote.
    least = least_votes + least_confidences / (3 * (np.abs(least_confidences) + 1))
    winner = least.argmax(axis=1)[:, None]
    votes = np.take_along_axis(least_votes, winner, axis=1)
    confidence = np.take_along_axis(confidences, winner, axis=1)
    is_behind = (most_votes < votes) | (
        (most_votes == votes) & (confidences + change < confidence - change)
    )
    np.put_along_axis(is_behind, winner, True, axis=1)
    decided: NDArray[np.bool_] = is_behind.all(axis=1)
    return decided


def _batches(count: int) -> Iterator[slice]:
    for size in BATCH_SIZES:
        yield slice(0, min(size, count))
    for start in range(0, count, MAX_BATCH):
        yield slice(start, min(start + MAX_BATCH, count))


def _run(
    sessions: dict[str, onnxruntime.InferenceSession],
    images: NDArray[np.uint8],
    expected: Expected,
) -> dict[str, Arrays]:
    feeds: dict[str, Arrays] = {ENCODER: {"image": images}, DECODER: {"latent": expected.mean}}
    if expected.prediction is not None:
        feeds[SVM] = {"mean": expected.mean, "log_variance": expected.log_variance}
        feeds[CLASSIFIER] = {"image": images}
    outputs = {}
    for graph, feed in feeds.items():
        names = [output.name for output in sessions[graph].get_outputs()]
        outputs[graph] = dict(zip(names, sessions[graph].run(None, feed), strict=True))
    return outputs


def _compare_batch(
    comparison: Comparison,
    outputs: dict[str, Arrays],
    expected: Expected,
    reference: Reference,
    start: int,
) -> None:
    for graph, output, wanted in (
        (ENCODER, "mean", expected.mean),
        (ENCODER, "log_variance", expected.log_variance),
        (DECODER, "image", expected.image),
    ):
        comparison.see(graph, output, _differences(outputs[graph][output], wanted), start)
    if expected.prediction is None or reference.table is None:
        return
    labels, scores = expected.prediction
    table, tolerance = reference.table, comparison.tolerances["decisions"]
    decided, open_votes, _ = clarity(table, expected.latents, tolerance)
    if "decisions" in outputs[SVM]:
        off = _differences(outputs[SVM]["decisions"], decisions(table, expected.latents))
        comparison.see(SVM, "decisions", off, start)
    for graph in (SVM, CLASSIFIER):
        label = _differences(outputs[graph]["label"], labels)
        score = _differences(outputs[graph]["scores"], scores)
        comparison.see(graph, "label", np.where(decided, label, 0), start)
        comparison.see(graph, "scores", np.where(open_votes == 0, score, 0), start)
        comparison.relabelled |= {start + int(row) for row in np.flatnonzero(label)}
    comparison.undecided |= {start + int(row) for row in np.flatnonzero(~decided)}


def clarity(table: SvmTable, latents: NDArray[np.float32], tolerance: float) -> Clarity:
    """What decisions that may be off by `tolerance` say of `latents` [B, D]."""
    decided, open_votes, smallest = [], [], []
    of_itself = np.eye(len(table.classes), dtype=bool)
    for chunk in margins(table, latents):
        decided.append(is_decided(chunk, tolerance))
        sizes = np.where(of_itself, np.inf, np.abs(chunk))
        open_votes.append((sizes <= tolerance).sum(axis=2).max(axis=1))
        smallest.append(sizes.min(axis=(1, 2)))
    return Clarity(*(np.concatenate(each) for each in (decided, open_votes, smallest)))


def _differences(found: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
    """The largest absolute difference in each image: [B]."""
    differences = np.abs(found.astype(np.float64) - wanted)
    largest: NDArray[np.float64] = differences.reshape(len(wanted), -1).max(axis=1)
    return largest
