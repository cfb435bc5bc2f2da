"""Settings know their ranges, and which of them a trajectory depends on."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from vaekit.config import (
    ModelConfig,
    TrainConfig,
    fields_by_flag,
    flatten,
    parse_cadence,
    to_dict,
    trajectory_differences,
)
from vaekit.errors import UserError


def test_a_setting_has_one_name_in_flags_and_in_files() -> None:
    assert list(fields_by_flag(TrainConfig)) == list(flatten(to_dict(TrainConfig())))


def test_only_settings_that_change_a_weight_are_differences_of_the_trajectory() -> None:
    config = TrainConfig()
    moved = dataclasses.replace(
        config,
        run="elsewhere",
        data=dataclasses.replace(
            config.data, root="elsewhere", resident_limit=1, skip_unreadable=True
        ),
        sample_every=1,
        checkpoint_every=3,
        tracker="tensorboard",
    )
    assert trajectory_differences(config, moved) == []
    settled = dataclasses.replace(config, mixed_precision="bf16")
    assert trajectory_differences(config, settled) == []  # it says nothing
    assert trajectory_differences(settled, dataclasses.replace(config, mixed_precision="no")) == [
        "mixed_precision: bf16 -> no"
    ]
    other = dataclasses.replace(config, seed=1, model=ModelConfig(latent_dim=2))
    assert trajectory_differences(config, other) == ["model.latent_dim: auto -> 2", "seed: 0 -> 1"]


@pytest.mark.parametrize(
    ("text", "due", "not_due"),
    [
        ("2", (4, 7, 0.0, 9.0), (3, 7, 1e9, 9.0)),
        ("2", (2, 6, 0.0, 9.0), (None, 6, 1e9, 9.0)),
        ("500steps", (None, 1000, 0.0, 9.0), (2, 1001, 1e9, 9.0)),
        ("10min", (None, 3, 600.0, 900.0), (2, 3, 599.0, 0.0)),
        ("auto", (1, 6, 0.1, 0.0), (None, 5, 599.0, 0.0)),  # the first, at the end of an epoch
        ("auto", (2, 6, 5.0, 0.5), (2, 6, 4.9, 0.5)),  # that took ten times as long as the last
        ("auto", (None, 5, 600.0, 0.5), (None, 5, 599.0, 0.5)),  # within a long epoch
        ("auto", (None, 5, 1000.0, 100.0), (None, 5, 999.0, 100.0)),  # to a slow disk
    ],
)
def test_it_is_due_when_its_count_is_full_or_when_it_pays(
    text: str,
    due: tuple[int | None, int, float, float],
    not_due: tuple[int | None, int, float, float],
) -> None:
    cadence = parse_cadence(text)
    assert cadence.is_due(*due)
    assert not cadence.is_due(*not_due)


@pytest.mark.parametrize("text", ["0", "-1", "", "1.5", "5 steps", "0min", "2epochs", "9" * 12])
def test_any_other_cadence_is_refused_by_the_name_of_its_flag(text: str) -> None:
    with pytest.raises(UserError, match=r"--checkpoint_every .*: expected .* as 2, 500steps"):
        parse_cadence(text)


@pytest.mark.parametrize("value", [None, "ten", [3], float("nan")])
def test_what_python_gives_is_a_number_or_refused_by_its_flag(value: Any) -> None:
    with pytest.raises(UserError, match=r"--epochs .*: expected at least 1"):
        TrainConfig(epochs=value)
    with pytest.raises(UserError, match=r"--model\.latent_dim .*: expected at least 1"):
        ModelConfig(latent_dim=value)
    assert ModelConfig(latent_dim=np.int64(3)).latent_dim == 3  # type: ignore[arg-type]
