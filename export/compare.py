"""The graphs of a bundle in onnxruntime against PyTorch and the SVM table, on held-out images."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.export.manifest import CLASSIFIER, DECODER, ENCODER, SVM, Arrays, excess
from vaekit.images.pixels import as_floats
from vaekit.models.vae import VAE
from vaekit.progress import Progress
from vaekit.svm.table import Prediction, SvmTable, pair_signs, predict

BATCH_SIZES = (1, 2, 7)  # tried on the first images; then all images in batches of MAX_BATCH
MAX_BATCH = 1000

# Largest absolute difference. Scores jump where a decision changes its sign: they are compared
# where no decision is within its tolerance of 0.
TOLERANCES = {
    "mean": 1e-4,
    "log_variance": 1e-4,
    "image": 1e-4,
    "decisions": 1e-3,
    "scores": 1e-3,
    "label": 0.0,
}


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

    An image is undecided where the tolerance of the decisions could change its label, and
    relabelled where that, or more, has happened.
    """

    num_images: int
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
            "tolerances": TOLERANCES,
            "undecided_images": sorted(self.undecided),
            "relabelled_images": sorted(self.relabelled),
        }

    def summary(self) -> str:
        """What was found, on a few lines for people."""
        lines = [
            f"{worst.graph:<16} {worst.output:<13} off by {worst.difference:.1e} at most "
            f"(tolerance {TOLERANCES[worst.output]:.0e})"
            for worst in self.worst.values()
        ]
        labels = (
            f"; {len(self.undecided)} within the tolerance of another label, "
            f"{len(self.relabelled)} labelled otherwise"
        )
        has_svm = (SVM, "label") in self.worst
        lines.append(f"on {self.num_images:,} test images{labels if has_svm else ''}")
        return "\n".join(lines)

    def require_within_tolerance(self) -> None:
        """Raise `UserError` naming the output that is furthest beyond its tolerance."""
        worst = max(
            self.worst.values(),
            key=lambda each: excess(each.difference, TOLERANCES[each.output]),
        )
        tolerance = TOLERANCES[worst.output]
        if not worst.difference <= tolerance:
            raise UserError(
                f"{worst.graph}: {worst.output} differs by {worst.difference:.3g} from what "
                f"PyTorch and the SVM table give, the tolerance is {tolerance:g} (test image "
                f"{worst.image}, in a batch of {worst.batch_size}); no bundle was written, "
                f"one that was there is as it was"
            )


def compare(bundle: Path, reference: Reference, pixels: NDArray[np.uint8]) -> Comparison:
    """Run every graph on every image [N, C, H, W], and the first ones at odd batch sizes too."""
    sessions = {path.name: onnxruntime.InferenceSession(path) for path in bundle.glob("*.onnx")}
    comparison = Comparison(len(pixels))
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
    if reference.table is None:
        return Expected(mean, log_variance, image, None)
    latents = np.concatenate([mean, log_variance], axis=1)
    return Expected(mean, log_variance, image, predict(reference.table, latents))


def is_decided(
    decisions: NDArray[np.float64], num_classes: int, tolerance: float
) -> NDArray[np.bool_]:
    """Whether no change of `decisions` [B, P] by up to `tolerance` could change the label: [B].

    The winner's least score must be above the greatest score of every other class.
    """
    signs = pair_signs(num_classes)
    surely_for, surely_against = decisions > tolerance, decisions < -tolerance
    is_for, is_against = (signs > 0).astype(float), (signs < 0).astype(float)
    least_votes = surely_for @ is_for + surely_against @ is_against
    most_votes = (~surely_against) @ is_for + (~surely_for) @ is_against
    confidences, change = decisions @ signs, (num_classes - 1) * tolerance
    least = least_votes + _squash(confidences - change)
    most = most_votes + _squash(confidences + change)
    winner = least.argmax(axis=1)[:, None]
    np.put_along_axis(most, winner, -np.inf, axis=1)
    decided: NDArray[np.bool_] = np.take_along_axis(least, winner, axis=1)[:, 0] > most.max(axis=1)
    return decided


def _squash(confidences: NDArray[np.float64]) -> NDArray[np.float64]:
    squashed: NDArray[np.float64] = confidences / (3 * (np.abs(confidences) + 1))
    return squashed


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
    labels, scores, decisions = expected.prediction
    tolerance = TOLERANCES["decisions"]
    decided = is_decided(decisions, len(reference.table.classes), tolerance)
    no_vote_can_change = np.abs(decisions).min(axis=1) > tolerance
    found = outputs[SVM]["decisions"]
    comparison.see(SVM, "decisions", _differences(found, decisions), start)
    for graph in (SVM, CLASSIFIER):
        label = _differences(outputs[graph]["label"], labels)
        score = _differences(outputs[graph]["scores"], scores)
        comparison.see(graph, "label", np.where(decided, label, 0), start)
        comparison.see(graph, "scores", np.where(no_vote_can_change, score, 0), start)
        comparison.relabelled |= {start + int(row) for row in np.flatnonzero(label)}
    comparison.undecided |= {start + int(row) for row in np.flatnonzero(~decided)}


def _differences(found: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
    """The largest absolute difference in each image: [B]."""
    differences = np.abs(found.astype(np.float64) - wanted)
    largest: NDArray[np.float64] = differences.reshape(len(wanted), -1).max(axis=1)
    return largest
