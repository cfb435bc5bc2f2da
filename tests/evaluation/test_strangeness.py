"""Images of another kind are strange, and those that belong are rarely called so."""

import numpy as np
import pytest

from vaekit.errors import UserError
from vaekit.evaluation.strangeness import (
    Figures,
    Usual,
    distances_from,
    distances_from_others,
    percentiles,
    smallest_share,
    strangeness,
    threshold,
    typical_of,
)


def figures(count: int, seed: int, farther: float = 0.0, worse: float = 0.0) -> Figures:
    """Distances and errors whose logarithms are normal, with these means."""
    distance, mse = np.random.default_rng(seed).normal(size=(2, count))
    return Figures(np.exp(distance + farther), np.exp(mse + worse))


TRAIN, NONE = figures(2000, seed=0), Figures(np.empty(0), np.empty(0))


def test_the_distance_is_the_mean_of_those_from_the_nearest() -> None:
    train = np.array([[0.0], [1.0], [3.0], [100.0]], np.float32)
    assert distances_from(train, np.array([[0.0]], np.float32), 3).tolist() == [4 / 3]
    assert distances_from_others(train, np.array([0, 2]), 2).tolist() == [2.0, 2.5]


def test_what_is_usual_is_the_median_and_the_deviation_of_a_normal_distribution() -> None:
    usual = typical_of(TRAIN, NONE).usual
    np.testing.assert_allclose(usual.median, 0, atol=0.1)
    np.testing.assert_allclose(usual.deviation, 1, atol=0.1)


def test_strangeness_is_that_of_what_is_more_unusual() -> None:
    usual = Usual(np.zeros(2), np.array([1.0, 2.0]))
    found = strangeness(Figures(np.exp([3.0, 0, -1]), np.exp([0.0, 8, -2])), usual)
    np.testing.assert_allclose(found, [3, 4, -1])


def test_what_lies_far_or_is_reconstructed_badly_is_strange() -> None:
    typical = typical_of(TRAIN, figures(400, seed=1))
    for other in (figures(50, seed=2, farther=8), figures(50, seed=2, worse=8)):
        assert (strangeness(other, typical.usual) > threshold(typical, 0.01)).all()


def test_percentiles_count_the_training_images_that_are_as_strange_or_less() -> None:
    typical = typical_of(TRAIN, NONE)._replace(train=np.array([1.0, 1, 2, 4]))
    assert percentiles(np.array([0.5, 1.0, 3.0, 9.0]), typical).tolist() == [0, 50, 75, 100]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_false_alarms_are_as_many_as_were_asked_for(share: float) -> None:
    shares = []
    for seed in range(1, 21):
        typical = typical_of(TRAIN, figures(400, seed))
        new = strangeness(figures(400, seed + 100), typical.usual)
        shares.append((new > threshold(typical, share)).mean())
    assert np.mean(shares) == pytest.approx(share, rel=0.25)


def test_few_images_to_calibrate_on_give_their_largest() -> None:
    typical = typical_of(TRAIN, figures(9, seed=1))
    assert threshold(typical, 0.01) == typical.calibration[-1]
    assert threshold(typical, smallest_share(typical)) == typical.calibration[-1]
    assert smallest_share(typical) == 0.1


def test_without_held_out_images_training_images_stand_for_them() -> None:
    typical = typical_of(TRAIN, NONE)
    np.testing.assert_array_equal(typical.calibration, typical.train)


def test_figures_that_are_all_equal_tell_nothing_strange() -> None:
    equal = Figures(np.zeros(20), np.zeros(20))
    typical = typical_of(equal, equal)
    assert not (strangeness(equal, typical.usual) > threshold(typical, 0.05)).any()


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UserError, match="share of false alarms"):
        threshold(typical_of(TRAIN, NONE), share)
