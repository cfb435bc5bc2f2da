"""How well predicted labels agree with the true ones."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support


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


def evaluate(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], class_names: tuple[str, ...]
) -> Scores:
    """Compare `predicted` with the true `labels`, both [N]: indices into `class_names`.

    What is undefined (the precision of a class never predicted) counts as 0.
    """
    every_class = range(len(class_names))
    per_class = precision_recall_fscore_support(
        labels, predicted, labels=every_class, zero_division=0
    )
    _, recalls, _, supports = per_class
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=np.unique(labels), average="macro", zero_division=0
    )
    return Scores(
        accuracy=float(accuracy_score(labels, predicted)),
        balanced_accuracy=float(recalls[supports > 0].mean()),
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        per_class=tuple(
            ClassScores(label, class_names[label], float(p), float(r), float(f), int(support))
            if support
            else ClassScores(label, class_names[label], None, None, None, 0)
            for label, p, r, f, support in zip(every_class, *per_class, strict=True)
        ),
        confusion_matrix=confusion_matrix(labels, predicted, labels=every_class),
    )
