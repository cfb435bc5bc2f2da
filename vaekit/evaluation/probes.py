"""How well simple classifiers tell classes apart by features, with many labels and with few."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC

# Shapes in comments: N images to fit on, M images to test on, D features.

MAX_ROWS = 10_000  # images that classifiers are fitted on, and measured on
MAX_VALUES = 2**26  # features of all of them: 512 MB as float64
NUM_DRAWS = 5
LABEL_COUNTS = (10, 100, 1000)
NUM_NEIGHBOURS = 5
C_LINEAR, C_RBF = 1.0, 10.0
_SEED = 0


class Split(NamedTuple):
    """Features of images, and their labels."""

    features: NDArray[np.float32]  # [N, D]
    labels: NDArray[np.int64]  # [N]


class Accuracies(NamedTuple):
    """Shares of the test images that each classifier names right."""

    linear_svm: float
    rbf_svm: float
    knn: float


class ByLabels(NamedTuple):
    """The accuracy of an RBF SVM fitted on `num_labels` images, over draws of them."""

    num_labels: int
    mean: float
    spread: float  # standard deviation over the draws


def some_rows(count: int, num_values: int) -> NDArray[np.int64]:
    """Which of `count` rows, of `num_values` each, classifiers see: few enough for an SVM."""
    most = min(count, MAX_ROWS, max(1, MAX_VALUES // num_values))
    chosen = np.random.default_rng(_SEED).choice(count, most, replace=False)
    return np.sort(chosen)


def probe(train: Split, test: Split) -> Accuracies:
    """Fit each classifier on `train`, of two classes or more, and measure it on `test`.

    Features keep their proportions to one another and are divided by one number, their standard
    deviation over all of them, so that the penalties mean the same for any features. The RBF
    kernel is as wide as there are features (scikit-learn's gamma="scale").
    """
    train, test = _scaled(train, test)
    k = min(NUM_NEIGHBOURS, len(train.labels))
    return Accuracies(
        _accuracy(_linear_svm(*train.features.shape), train, test),
        _accuracy(SVC(C=C_RBF), train, test),
        _accuracy(KNeighborsClassifier(k, algorithm="brute"), train, test),
    )


def accuracy_by_labels(train: Split, test: Split) -> list[ByLabels]:
    """How well an RBF SVM does with those of `LABEL_COUNTS` that are fewer than all labels.

    Labels are drawn `NUM_DRAWS` times, evenly over the classes, of which there are two or more.
    """
    train, test = _scaled(train, test)
    found = []
    for count in LABEL_COUNTS:
        if count >= len(train.labels):
            break
        accuracies = []
        for draw in range(NUM_DRAWS):
            chosen = even_draw(train.labels, draw)[:count]
            drawn = Split(train.features[chosen], train.labels[chosen])
            accuracies.append(_accuracy(SVC(C=C_RBF), drawn, test))
        found.append(ByLabels(count, float(np.mean(accuracies)), float(np.std(accuracies))))
    return found


def even_draw(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """All indices [N] in random order, one of each class before the second of any."""
    order = np.random.default_rng([_SEED, seed]).permutation(len(labels))
    turns = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels[order] == label)
        turns[of_class] = np.arange(len(of_class))
    drawn: NDArray[np.int64] = order[np.argsort(turns, kind="stable")]
    return drawn


def _linear_svm(num_rows: int, num_features: int) -> LinearSVC | SVC:
    """In the space that is smaller: of features, or of images, where liblinear takes minutes."""
    if num_features > num_rows:
        return SVC(C=C_LINEAR, kernel="linear")
    return LinearSVC(C=C_LINEAR, dual=False, random_state=_SEED)


def _scaled(train: Split, test: Split) -> tuple[Split, Split]:
    scale = np.float32(train.features.std(dtype=np.float64)) or np.float32(1)
    return (
        train._replace(features=train.features / scale),
        test._replace(features=test.features / scale),
    )


def _accuracy(
    classifier: SVC | LinearSVC | KNeighborsClassifier, train: Split, test: Split
) -> float:
    return float(classifier.fit(*train).score(*test))
