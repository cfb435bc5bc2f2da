"""Classifiers on features say how well these tell classes apart."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC

from vaekit.evaluation.probes import Split, accuracy_by_labels, even_draw, probe, some_rows

DIGITS = load_digits()
TRAIN = Split(DIGITS.data[:400].astype(np.float32), DIGITS.target[:400].astype(np.int64))
TEST = Split(DIGITS.data[400:600].astype(np.float32), DIGITS.target[400:600].astype(np.int64))


def test_the_accuracies_are_those_of_scikit_learn_on_scaled_features() -> None:
    scale = TRAIN.features.std()
    models = [LinearSVC(dual=False, random_state=0), SVC(C=10), KNeighborsClassifier(5)]
    expected = [
        model.fit(TRAIN.features / scale, TRAIN.labels).score(TEST.features / scale, TEST.labels)
        for model in models
    ]
    assert probe(TRAIN, TEST) == pytest.approx(expected, abs=0.01)


def test_with_more_features_than_images_the_linear_svm_is_as_good() -> None:
    few = Split(TRAIN.features[:60], TRAIN.labels[:60])  # of 64 pixels
    scale = few.features.std()
    model = LinearSVC(dual=False, random_state=0).fit(few.features / scale, few.labels)
    expected = model.score(TEST.features / scale, TEST.labels)
    assert probe(few, TEST).linear_svm == pytest.approx(expected, abs=0.06)


def test_features_in_another_unit_are_worth_the_same() -> None:
    smaller = [split._replace(features=split.features / 256) for split in (TRAIN, TEST)]
    assert probe(*smaller) == probe(TRAIN, TEST)


def test_more_labels_help() -> None:
    found = accuracy_by_labels(TRAIN, TEST)
    assert [each.num_labels for each in found] == [10, 100]
    assert found[0].mean < found[1].mean <= 1
    assert min(each.spread for each in found) > 0


def test_features_that_are_all_equal_tell_nothing_apart() -> None:
    constant = [split._replace(features=np.ones_like(split.features)) for split in (TRAIN, TEST)]
    assert max(probe(*constant)) < 0.3


def test_a_draw_takes_each_class_before_it_takes_one_twice() -> None:
    labels = np.array([0] * 90 + [1] * 9 + [2])
    order = even_draw(labels, 0)
    assert sorted(order.tolist()) == list(range(100))
    assert sorted(labels[order[:3]].tolist()) == [0, 1, 2]
    assert sorted(labels[order[:9]].tolist()) == [0] * 4 + [1] * 4 + [2]
    assert order.tolist() != even_draw(labels, 1).tolist()


def test_rows_are_few_enough_for_memory_and_always_the_same() -> None:
    assert len(some_rows(60_000, 10)) == 10_000
    assert len(some_rows(60_000, 2**20)) == 64
    np.testing.assert_array_equal(some_rows(70, 10), np.arange(70))
    np.testing.assert_array_equal(some_rows(60_000, 10), some_rows(60_000, 10))
