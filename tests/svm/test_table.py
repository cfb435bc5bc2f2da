"""The table of an SVM predicts what scikit-learn's SVC predicts."""

import tracemalloc

import numpy as np
import pytest
from svm_helpers import Split, digits, fit_scikit_learn, fitted_on, fitted_svm, made_up

from vaekit.config import SvmConfig
from vaekit.errors import UserError
from vaekit.svm import table as table_module
from vaekit.svm.fit import fit_table
from vaekit.svm.table import decisions, predict


@pytest.mark.parametrize("classes", [(3, 8), (0, 4, 9), tuple(range(10))])
@pytest.mark.parametrize("config", [SvmConfig(), SvmConfig(C=0.1, gamma=3.0)])
def test_labels_scores_and_decisions_are_those_of_scikit_learn(
    classes: tuple[int, ...], config: SvmConfig
) -> None:
    split = digits(20, classes)
    table = fitted_on(split, config)
    prediction, of_pairs = predict(table, split.test), decisions(table, split.test)
    oracle = fit_scikit_learn(split, config)
    test = split.test.astype(np.float64)

    np.testing.assert_array_equal(prediction.labels, oracle.predict(test))
    num_pairs = len(classes) * (len(classes) - 1) // 2
    assert of_pairs.shape == (len(test), num_pairs)
    assert prediction.scores.shape == (len(test), len(classes))
    if len(classes) > 2:
        np.testing.assert_allclose(prediction.scores, oracle.decision_function(test), atol=1e-9)
        oracle["svc"].set_params(decision_function_shape="ovo", break_ties=False)
    expected = oracle.decision_function(test).reshape(len(test), num_pairs)
    np.testing.assert_allclose(of_pairs, expected, atol=1e-9)


def test_features_that_never_vary_change_nothing() -> None:
    split = digits(20, (3, 8, 9))
    train, test = (
        np.hstack([each, np.full((len(each), 5), -4.6, np.float32)])
        for each in (split.train, split.test)
    )
    wider = fit_table(train, split.train_labels, SvmConfig())
    expected = decisions(fitted_on(split, SvmConfig()), split.test)
    np.testing.assert_allclose(decisions(wider, test), expected, atol=1e-9)


def test_tied_votes_are_broken_as_scikit_learn_breaks_them() -> None:
    split = digits(2)
    oracle = fit_scikit_learn(split, SvmConfig()).predict(split.test.astype(np.float64))
    first_wins = fit_scikit_learn(split, SvmConfig(), break_ties=False).predict(
        split.test.astype(np.float64)
    )
    assert (oracle != first_wins).any()  # else there is no tie to break

    prediction = predict(fitted_on(split, SvmConfig()), split.test)

    np.testing.assert_array_equal(prediction.labels, oracle)


def test_of_two_classes_the_predicted_one_has_the_vote_and_the_higher_score() -> None:
    split = digits(2, (3, 8))
    table = fitted_on(split, SvmConfig())
    prediction = predict(table, split.test)
    second = prediction.labels == 8

    assert set(prediction.labels) == {3, 8}
    np.testing.assert_array_equal(decisions(table, split.test)[:, 0] > 0, second)
    np.testing.assert_array_equal(prediction.scores[:, 1] > 0.5, second)
    np.testing.assert_array_equal(prediction.scores[:, 0] > 0.5, ~second)
    np.testing.assert_allclose(prediction.scores.sum(axis=1), 1)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.injects(16)
def test_latents_that_are_all_the_same_get_the_label_that_scikit_learn_gives(
    num_classes: int,
) -> None:
    same = np.full((6 * num_classes, 4), 0.25, np.float32)  # every feature constant
    labels = np.arange(6 * num_classes) % num_classes
    split = Split(same, labels, same, labels)

    prediction = predict(fitted_on(split, SvmConfig()), same)

    oracle = fit_scikit_learn(split, SvmConfig()).predict(same)
    np.testing.assert_array_equal(prediction.labels, oracle)


def test_predictions_do_not_depend_on_how_many_images_are_predicted_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    test, table = digits(20).test, fitted_svm().table
    whole, num_vectors = predict(table, test), len(table.support_vectors)
    for chunk_size in (7, 1):
        monkeypatch.setattr(table_module, "MAX_VALUES", chunk_size * num_vectors)
        chunked = predict(table, test)
        np.testing.assert_array_equal(chunked.labels, whole.labels)
        np.testing.assert_allclose(chunked.scores, whole.scores, atol=1e-12)


def test_no_images_get_no_labels() -> None:
    table = fitted_svm().table
    prediction = predict(table, np.empty((0, 20), np.float32))
    assert prediction.labels.shape == (0,)
    assert prediction.scores.shape == (0, 10)
    assert decisions(table, np.empty((0, 20), np.float32)).shape == (0, 45)


@pytest.mark.slow
def test_hundreds_of_classes_are_told_apart_in_little_memory() -> None:
    """A weight for each support vector and each of the 44,850 pairs would take 430 MB."""
    split = made_up(num_classes=300)
    table = fitted_on(split, SvmConfig())
    tracemalloc.start()
    try:
        labels = predict(table, split.test).labels
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200e6
    oracle = fit_scikit_learn(split, SvmConfig()).predict(split.test.astype(np.float64))
    np.testing.assert_array_equal(labels, oracle)


@pytest.mark.injects(16)
def test_latents_that_are_not_finite_are_refused_with_their_number() -> None:
    split = digits(20)
    split.train[3, 0] = np.nan
    split.train[8, [1, 2]] = np.inf
    with pytest.raises(UserError, match=r"training latents: 2 of 900 rows are not finite"):
        fitted_on(split, SvmConfig())
    with pytest.raises(UserError, match=r"2 of 900 rows are not finite"):
        predict(fitted_svm().table, split.train)


@pytest.mark.injects(16)
def test_one_class_alone_is_refused() -> None:
    split = digits(20, (4,))
    with pytest.raises(UserError, match="an SVM needs at least two classes"):
        fitted_on(split, SvmConfig())
