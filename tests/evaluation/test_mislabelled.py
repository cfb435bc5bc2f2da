"""Wrong labels are found among right ones."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import precision_recall_curve
from sklearn.neighbors import KNeighborsClassifier

from vaekit.errors import UserError
from vaekit.evaluation import mislabelled
from vaekit.evaluation.mislabelled import suspect_labels

DIGITS = load_digits()
FEATURES = PCA(10, random_state=0).fit_transform(DIGITS.data).astype(np.float32)
LABELS = DIGITS.target.astype(np.int64)


def plant(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One label in twenty made wrong; and which."""
    generator = np.random.default_rng(seed)
    wrong = generator.choice(len(labels), len(labels) // 20, replace=False)
    planted = labels.copy()
    planted[wrong] = (labels[wrong] + generator.integers(1, 10, len(wrong))) % 10
    return planted, np.isin(np.arange(len(labels)), wrong)


@pytest.mark.parametrize("seed", range(3))
def test_planted_wrong_labels_are_found(seed: int) -> None:
    labels, is_wrong = plant(LABELS, seed)
    found = suspect_labels(FEATURES, labels)
    precision, recall, _ = precision_recall_curve(is_wrong, found.suspicion)
    assert precision[recall >= 0.5].max() >= 0.9
    likely = found.likely_wrong()
    assert is_wrong[likely.rows[: len(likely.rows) // 2]].mean() >= 0.9
    assert (np.diff(likely.suspicion) <= 0).all()
    right_again = found.suggested[is_wrong] == LABELS[is_wrong]
    assert right_again.mean() >= 0.9


def test_the_votes_are_those_of_scikit_learn() -> None:
    labels, _ = plant(LABELS[:300], 0)
    found = suspect_labels(FEATURES[:300], labels, k=6)
    for index in range(0, 300, 30):
        others = np.arange(300) != index
        model = KNeighborsClassifier(6, weights="distance").fit(
            FEATURES[:300][others], labels[others]
        )
        votes = model.predict_proba(FEATURES[index : index + 1])[0]
        own = votes[model.classes_ == labels[index]].sum()
        assert found.suspicion[index] == pytest.approx(1 - own, abs=1e-5)
        assert found.suggested[index] == model.classes_[votes.argmax()]


def test_images_that_are_all_equal_are_no_reason_to_fail() -> None:
    labels = np.array([0, 1] * 10)
    found = suspect_labels(np.zeros((20, 2), np.float32), labels, k=5)
    assert np.isfinite(found.suspicion).all()


def test_labels_of_one_class_are_refused() -> None:
    with pytest.raises(UserError, match="20 labels of 1 class"):
        suspect_labels(FEATURES[:20], np.zeros(20, np.int64))


def test_of_a_large_set_some_are_examined_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = suspect_labels(FEATURES, LABELS)
    monkeypatch.setattr(mislabelled, "MAX_EXAMINED", 100)
    some = suspect_labels(FEATURES, LABELS)
    assert len(some.rows) == 100
    np.testing.assert_allclose(some.suspicion, whole.suspicion[some.rows], atol=1e-6)
