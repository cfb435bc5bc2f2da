"""How well predicted labels agree with the true ones."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, precision_recall_fscore_support


class ClassScores(NamedTuple):
    """How well one class was told apart; None of a class without test images."""

    label: int
    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int  # its number of test images


class Scores(NamedTuple):
    """Precision, recall and F1 are macro averages over the classes that have test images."""

    accuracy: float
    balanced_accuracy: float  # the mean recall of the classes that have test images
    precision: float
    recall: float
    f1: float
    per_class: tuple[ClassScores, ...]
    confusion_matrix: NDArray[np.int64]  # rows true, columns predicted


def confusion(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """How often each class [K, K] was `predicted` [N] for each of the true `labels` [N]."""
    counts = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def evaluate(confusion: NDArray[np.int64], class_names: tuple[str, ...]) -> Scores:
    """What to say of predictions that were counted [K, K], rows true, columns predicted.

    What is undefined (the precision of a class never predicted) counts as 0.
    """
    labels, predicted = np.nonzero(confusion)
    counts = confusion[labels, predicted]
    every_class = range(len(class_names))
    per_class = precision_recall_fscore_support(
        labels, predicted, labels=every_class, zero_division=0, sample_weight=counts
    )
    *figures, supports = per_class
    precision, recall, f1 = (float(each[supports > 0].mean()) for each in figures)
    return Scores(
        accuracy=float(accuracy_score(labels, predicted, sample_weight=counts)),
        balanced_accuracy=recall,
        precision=precision,
        recall=recall,
        f1=f1,
        per_class=tuple(
            ClassScores(label, class_names[label], float(p), float(r), float(f), int(support))
            if support
            else ClassScores(label, class_names[label], None, None, None, 0)
            for label, p, r, f, support in zip(every_class, *per_class, strict=True)
        ),
        confusion_matrix=confusion,
    )
