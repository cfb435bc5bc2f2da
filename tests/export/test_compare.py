"""The comparison sees every difference that matters, and says where it is."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from vaekit.config import DataConfig, SvmConfig
from vaekit.export.compare import (
    BATCH_SIZES,
    TOLERANCES,
    Comparison,
    Reference,
    Worst,
    compare,
    is_decided,
    tolerances,
)
from vaekit.export.graphs import svm_graph
from vaekit.images.sets import load_images
from vaekit.runs.run import Run
from vaekit.svm.fit import fit_table
from vaekit.svm.table import decisions

GRAPHS = ["encoder.onnx", "decoder.onnx", "svm.onnx", "classifier.onnx"]


@pytest.fixture
def reference(exported_run: Path) -> Reference:
    run = Run(exported_run)
    return Reference(run.weights.vae, run.svm.table)


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
    assert comparison.fault(GRAPHS) is None
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
    change(bundle / graph, weight, 0.005)
    comparison = compare(bundle, reference, pixels)
    fault = comparison.fault([graph])
    assert fault is not None
    assert f"{graph}: {output} differs by 0.0" in fault
    assert "the tolerance is 0.00" in fault
    assert "test image" in fault


@pytest.mark.slow
def test_a_classifier_that_labels_otherwise_is_found(
    bundle: Path, reference: Reference, pixels: np.ndarray
) -> None:
    change(bundle / "classifier.onnx", "svm.classes", 1)
    comparison = compare(bundle, reference, pixels)
    assert comparison.relabelled
    assert "classifier.onnx: label differs by 1" in str(comparison.fault(GRAPHS))
    assert comparison.fault(["encoder.onnx", "decoder.onnx"]) is None


def test_a_nan_is_the_largest_difference_and_stays_so() -> None:
    worst = Worst("encoder.onnx", "mean")
    worst.see(np.array([0.0, np.nan]), 10)
    worst.see(np.array([5.0]), 20)
    assert np.isnan(worst.difference)
    assert worst.image == 11
    comparison = Comparison(30, TOLERANCES, worst={("encoder.onnx", "mean"): worst})
    assert "mean differs by nan" in str(comparison.fault(GRAPHS))


@pytest.mark.slow
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


@pytest.mark.slow
def test_without_an_svm_only_encoder_and_decoder_are_compared(
    bundle: Path, reference: Reference, pixels: np.ndarray
) -> None:
    comparison = compare(bundle, Reference(reference.vae, None), pixels)
    assert {graph for graph, _ in comparison.worst} == {"encoder.onnx", "decoder.onnx"}
    assert "label" not in comparison.summary()


def margins_of(decisions: np.ndarray, num_classes: int) -> np.ndarray:
    """Pair by pair, in both orders."""
    margins = np.zeros((len(decisions), num_classes, num_classes))
    pairs = [(i, j) for i in range(num_classes) for j in range(i + 1, num_classes)]
    for pair, (i, j) in enumerate(pairs):
        margins[:, i, j], margins[:, j, i] = decisions[:, pair], -decisions[:, pair]
    return margins


def scores_of(decisions: np.ndarray, num_classes: int) -> np.ndarray:
    """Votes and squashed decisions, class by class."""
    margins = margins_of(decisions, num_classes)
    confidences = margins.sum(axis=2)
    return (margins > 0).sum(axis=2) + confidences / (3 * (np.abs(confidences) + 1))


def test_no_change_within_the_tolerance_relabels_a_decided_image() -> None:
    generator = np.random.default_rng(0)
    tolerance, num_classes = 0.2, 4
    decisions = generator.normal(scale=0.6, size=(400, 6))
    decided = is_decided(margins_of(decisions, num_classes), tolerance)
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
    np.testing.assert_array_equal(
        is_decided(margins_of(decisions, 2), 0.1), [True, True, False, False]
    )


@pytest.mark.parametrize("C", [1e-2, 1e3])
@pytest.mark.parametrize("gamma", [0.1, 10.0])
def test_float32_is_off_by_less_than_the_tolerance_of_the_table(C: float, gamma: float) -> None:
    """Classes that overlap, some images far out; from weights near 0 to sums of thousands."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 150)
    latents = (generator.normal(size=(4, 12))[labels] + generator.normal(size=(600, 12))) * (
        generator.choice([1, 1, 1, 8], size=(600, 1))
    )
    table = fit_table(latents.astype(np.float32), labels, SvmConfig(C=C, gamma=gamma))
    near = (latents + 0.1 * generator.normal(size=latents.shape)).astype(np.float32)
    mean, log_variance = torch.from_numpy(near).split(6, dim=1)
    found = svm_graph(table)(mean, log_variance).decisions.numpy()
    worst = np.abs(found - decisions(table, near)).max()
    tolerance = tolerances(table)["decisions"]
    assert worst < tolerance
    assert tolerance < max(2e-3, 100 * worst)  # and yet it is not of no use


@pytest.mark.slow
def test_an_undecided_image_is_listed_and_may_be_labelled_either_way(
    bundle: Path, reference: Reference, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES, "decisions", 1e3)
    change(bundle / "classifier.onnx", "svm.classes", 1)
    comparison = compare(bundle, reference, pixels)
    assert comparison.fault(GRAPHS) is None
    assert comparison.metadata()["undecided_images"] == list(range(len(pixels)))
    assert comparison.metadata()["relabelled_images"]
