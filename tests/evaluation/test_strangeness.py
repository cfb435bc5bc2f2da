"""Images of another kind are strange, and those that belong are rarely called so."""

import numpy as np
import pytest

from vaekit.errors import UserError
from vaekit.evaluation.strangeness import (
    distances_from,
    percentiles,
    smallest_share,
    threshold,
    typical_distances,
)


def normal(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


TRAIN = normal(500, seed=0)


def test_the_distance_is_the_mean_of_those_from_the_nearest() -> None:
    train = np.array([[0.0], [1.0], [3.0], [100.0]], np.float32)
    assert distances_from(train, np.array([[0.0]], np.float32), 3).tolist() == [4 / 3]


def test_percentiles_count_the_training_images_within() -> None:
    typical = typical_distances(
        np.array([[0.0], [1.0], [3.0], [7.0]], np.float32), TRAIN[:0, :1], 1
    )
    assert typical.train.tolist() == [1, 1, 2, 4]
    assert percentiles(np.array([0.5, 1.0, 3.0, 9.0]), typical).tolist() == [0, 50, 75, 100]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_false_alarms_are_as_many_as_were_asked_for(share: float) -> None:
    shares = []
    for seed in range(20):
        typical = typical_distances(TRAIN, normal(400, seed=1 + seed), 5)
        limit = threshold(typical, share)
        shares.append((distances_from(TRAIN, normal(400, seed=100 + seed), 5) > limit).mean())
    assert np.mean(shares) == pytest.approx(share, rel=0.25)


def test_what_lies_elsewhere_is_strange() -> None:
    typical = typical_distances(TRAIN, normal(400, seed=1), 5)
    assert (distances_from(TRAIN, normal(50, seed=2) + 6, 5) > threshold(typical, 0.01)).all()


def test_few_images_to_calibrate_on_give_their_largest_distance() -> None:
    typical = typical_distances(TRAIN, normal(9, seed=1), 5)
    assert threshold(typical, 0.01) == typical.calibration[-1]
    assert threshold(typical, smallest_share(typical)) == typical.calibration[-1]
    assert smallest_share(typical) == 0.1


def test_without_held_out_images_training_images_stand_for_them() -> None:
    typical = typical_distances(TRAIN, TRAIN[:0], 5)
    np.testing.assert_array_equal(typical.calibration, typical.train)


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UserError, match="share of false alarms"):
        threshold(typical_distances(TRAIN, TRAIN[:0], 5), share)
