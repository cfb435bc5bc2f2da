"""Digits in place of latents, and scikit-learn's SVM of them, for the tests of ours."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from vaekit.config import SvmConfig
from vaekit.runs.svm import Svm
from vaekit.svm.fit import fit_table
from vaekit.svm.table import SvmTable

NUM_TRAIN = 900
DIGIT_NAMES = tuple("0123456789")


class Split(NamedTuple):
    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]


load_digits_once = cache(load_digits)


def digits(num_features: int, classes: tuple[int, ...] = tuple(range(10))) -> Split:
    """Principal components of 8x8 digits in the place of latents, of unlike scales."""
    pixels, labels = load_digits_once(return_X_y=True)
    kept = np.isin(labels, classes)
    # float64 first: scikit-learn chooses its solver by type, the rounding is ours
    features = PCA(num_features, svd_solver="full").fit_transform(pixels)[kept].astype(np.float32)
    labels = labels[kept].astype(np.int64)
    num_train = NUM_TRAIN * len(features) // len(pixels)
    return Split(features[:num_train], labels[:num_train], features[num_train:], labels[num_train:])


def made_up(num_classes: int) -> Split:
    """A cloud of three to five points in 20 dimensions for each class, which overlap."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(num_classes), generator.integers(3, 6, num_classes))
    centres = generator.normal(scale=1.2, size=(num_classes, 20))
    train, test = (
        (centres[labels] + generator.normal(size=(len(labels), 20))).astype(np.float32)
        for _ in range(2)
    )
    return Split(train, labels, test[::10], labels[::10])


def fit_scikit_learn(
    split: Split, config: SvmConfig, break_ties: bool = True, weight: float = 1.0
) -> Pipeline:
    """`weight` is that of the second half of the features, the log-variances of latents."""
    half = split.train.shape[1] // 2
    weights = np.append(np.ones(split.train.shape[1] - half), np.full(half, weight))
    gamma = config.gamma / np.square(weights).sum()
    model = make_pipeline(
        StandardScaler(),
        FunctionTransformer(lambda features: features * weights),
        SVC(C=config.C, gamma=gamma, class_weight=config.class_weight, break_ties=break_ties),
    )
    return model.fit(split.train.astype(np.float64), split.train_labels)


def fitted_on(split: Split, config: SvmConfig) -> SvmTable:
    return fit_table(split.train, split.train_labels, config)


@cache
def fitted_svm() -> Svm:
    """An SVM of all digits, of twenty features; no test may change it."""
    split = digits(20)
    return Svm(fitted_on(split, SvmConfig()), DIGIT_NAMES, "a" * 64, "b" * 64)
