"""The comparison sees every difference that matters, and says where it is."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from vaekit.config import DataConfig
from vaekit.errors import UserError
from vaekit.export.compare import (
    BATCH_SIZES,
    TOLERANCES,
    Comparison,
    Reference,
    Worst,
    compare,
    is_decided,
)
from vaekit.images.sets import load_images
from vaekit.runs.folder import RunFolder
from vaekit.runs.run import Run
from vaekit.svm.table import pair_signs


@pytest.fixture
def reference(exported_run: Path) -> Reference:
    run = RunFolder(exported_run)
    return Reference(Run(run.path).weights.vae, Run(run.path).svm.table)


@pytest.fixture
def pixels() -> np.ndarray:
    return load_images(DataConfig(name="digits", limit=96), seed=0).test.pixels


def change(path: Path, name: str, by: float) -> None:
    """Add to the first value of the weight whose name ends in `name`."""
    model = onnx.load(path)
    (weight,) = (each for each in model.graph.initializer if each.name.endswith(name))
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] += by
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)


def test_a_bundle_as_exported_is_within_tolerance(
    bundle: Path, reference: Reference, pixels: np.ndarray
) -> None:
    comparison = compare(bundle, reference, pixels)
    comparison.require_within_tolerance()
    facts = comparison.metadata()
    assert facts["num_images"] == len(pixels)
    assert len(facts["largest_differences"]) == 8
    assert facts["batch_sizes"] == [1, 2, 7, 1000]
    assert f"on {len(pixels)} test images; " in comparison.summary()


@pytest.mark.parametrize(
    ("graph", "weight", "output"),
    [
        ("encoder.onnx", "enc.mu.bias", "mean"),
        ("encoder.onnx", "enc.var.bias", "log_variance"),
        ("decoder.onnx", "dec.deconv2.bias", "image"),
        ("svm.onnx", "intercepts", "decisions"),
    ],
)
def test_a_graph_that_computes_something_else_is_named_with_the_difference(
    graph: str, weight: str, output: str, bundle: Path, reference: Reference, pixels: np.ndarray
) -> None:
    change(bundle / graph, weight, 0.01)
    comparison = compare(bundle, reference, pixels)
    with pytest.raises(UserError) as error:
        comparison.require_within_tolerance()
    assert f"{graph}: {output} differs by 0.0" in str(error.value)
    assert "the tolerance is 0.00" in str(error.value)
    assert "test image" in str(error.value)


def test_a_classifier_that_labels_otherwise_is_found(
    bundle: Path, reference: Reference, pixels: np.ndarray
) -> None:
    change(bundle / "classifier.onnx", "svm.classes", 1)
    comparison = compare(bundle, reference, pixels)
    assert comparison.relabelled
    with pytest.raises(UserError, match=r"classifier\.onnx: label differs by 1"):
        comparison.require_within_tolerance()


def test_a_nan_is_the_largest_difference_and_stays_so() -> None:
    worst = Worst("encoder.onnx", "mean")
    worst.see(np.array([0.0, np.nan]), 10)
    worst.see(np.array([5.0]), 20)
    assert np.isnan(worst.difference)
    assert worst.image == 11
    comparison = Comparison(30, {("encoder.onnx", "mean"): worst})
    with pytest.raises(UserError, match="mean differs by nan"):
        comparison.require_within_tolerance()


def test_every_image_is_compared_and_the_first_at_odd_batch_sizes_too(
    bundle: Path, reference: Reference, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaekit.export.compare.MAX_BATCH", 5)
    seen: list[tuple[int, int]] = []

    def see(self: Comparison, graph: str, output: str, differences: np.ndarray, start: int) -> None:
        if output == "mean":
            seen.append((start, len(differences)))

    monkeypatch.setattr(Comparison, "see", see)
    compare(bundle, reference, pixels[:13])
    assert seen == [*((0, size) for size in BATCH_SIZES), (0, 5), (5, 5), (10, 3)]


def test_without_an_svm_only_encoder_and_decoder_are_compared(
    bundle: Path, reference: Reference, pixels: np.ndarray
) -> None:
    comparison = compare(bundle, Reference(reference.vae, None), pixels)
    assert {graph for graph, _ in comparison.worst} == {"encoder.onnx", "decoder.onnx"}
    assert "label" not in comparison.summary()


def scores_of(decisions: np.ndarray, num_classes: int) -> np.ndarray:
    """Votes and squashed decisions, pair by pair and class by class."""
    scores = np.zeros((len(decisions), num_classes))
    confidences = np.zeros_like(scores)
    pairs = [(i, j) for i in range(num_classes) for j in range(i + 1, num_classes)]
    for pair, (i, j) in enumerate(pairs):
        first = decisions[:, pair] >= 0
        scores[first, i] += 1
        scores[~first, j] += 1
        confidences[:, i] += decisions[:, pair]
        confidences[:, j] -= decisions[:, pair]
    return scores + confidences / (3 * (np.abs(confidences) + 1))


def test_no_change_within_the_tolerance_relabels_a_decided_image() -> None:
    generator = np.random.default_rng(0)
    tolerance, num_classes = 0.2, 4
    decisions = generator.normal(scale=0.6, size=(400, 6))
    decided = is_decided(decisions, num_classes, tolerance)
    assert 0.1 < decided.mean() < 0.9
    labels = scores_of(decisions, num_classes).argmax(axis=1)
    relabelled = np.zeros(len(decisions), bool)
    for _ in range(300):
        moved = decisions + generator.choice([-0.999, 0.999], decisions.shape) * tolerance
        relabelled |= scores_of(moved, num_classes).argmax(axis=1) != labels
    assert not (relabelled & decided).any()
    # The bound takes the worst of each class by itself, so it may be too careful, but not often.
    assert relabelled[~decided].mean() > 0.5


def test_two_classes_are_decided_by_one_decision() -> None:
    decisions = np.array([[0.3], [-0.3], [0.05], [-0.05]])
    np.testing.assert_array_equal(is_decided(decisions, 2, 0.1), [True, True, False, False])
    assert pair_signs(2).tolist() == [[-1, 1]]


def test_an_undecided_image_is_listed_and_may_be_labelled_either_way(
    bundle: Path, reference: Reference, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES, "decisions", 1e3)
    change(bundle / "classifier.onnx", "svm.classes", 1)
    comparison = compare(bundle, reference, pixels)
    comparison.require_within_tolerance()
    assert comparison.metadata()["undecided_images"] == list(range(len(pixels)))
    assert comparison.metadata()["relabelled_images"]
