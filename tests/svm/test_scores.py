"""How good the predictions are is said as scikit-learn says it."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, classification_report, confusion_matrix

from vaekit.svm.scores import confusion, evaluate


def test_figures_are_those_of_scikit_learns_metrics() -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(0, 10, 800)
    predicted = np.where(generator.random(800) < 0.8, true, generator.integers(0, 10, 800))
    names = tuple("0123456789")

    scores = evaluate(confusion(true, predicted, 10), names)

    report = classification_report(true, predicted, target_names=names, output_dict=True)
    macro = report["macro avg"]
    assert scores.accuracy == pytest.approx(report["accuracy"])
    assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, predicted))
    assert scores.precision == pytest.approx(macro["precision"])
    assert scores.recall == pytest.approx(macro["recall"])
    assert scores.f1 == pytest.approx(macro["f1-score"])
    for each in scores.per_class:
        expected = report[each.name]
        assert each.precision == pytest.approx(expected["precision"])
        assert each.recall == pytest.approx(expected["recall"])
        assert each.f1 == pytest.approx(expected["f1-score"])
        assert each.support == expected["support"]
    np.testing.assert_array_equal(scores.confusion_matrix, confusion_matrix(true, predicted))


def test_classes_that_are_rare_or_never_occur_keep_their_row_and_column() -> None:
    true = np.array([0, 0, 1, 1])
    predicted = np.array([0, 3, 3, 3])
    scores = evaluate(confusion(true, predicted, 4), ("cat", "dog", "emu", "fox"))

    assert scores.confusion_matrix.tolist() == [
        [1, 0, 0, 1],
        [0, 0, 0, 2],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert scores.per_class == (
        (0, "cat", 1.0, 0.5, pytest.approx(2 / 3), 2),
        (1, "dog", 0.0, 0.0, 0.0, 2),
        (2, "emu", None, None, None, 0),
        (3, "fox", None, None, None, 0),
    )
    assert scores.accuracy == 0.25
    assert scores.balanced_accuracy == 0.25  # of cat and dog, which there are to be told apart
    assert scores.recall == pytest.approx(0.5 / 2)  # emu and fox have no test images
