"""Figures stand beside the reference's only where the run is like it."""

from dataclasses import replace
from typing import Any

import pytest

from vaekit.config import DataConfig, ModelConfig, TrainConfig
from vaekit.models.settle import REFERENCE
from vaekit.runs.reference import reference_for

LIKE_IT = TrainConfig(model=REFERENCE, epochs=20)


@pytest.mark.parametrize(
    "settings",
    [{}, {"batch_size": 64, "learning_rate": 2e-3, "seed": 5, "mixed_precision": "bf16"}],
)
def test_the_reference_s_model_on_the_whole_of_mnist_is_compared_however_it_was_trained(
    settings: dict[str, Any],
) -> None:
    reference = reference_for(replace(LIKE_IT, **settings))
    assert reference is not None
    assert reference.accuracy == 0.9316


@pytest.mark.parametrize(
    "settings",
    [
        {"data": DataConfig(name="fashion-mnist")},
        {"data": DataConfig(limit=1000)},
        {"data": DataConfig(holdout=5000)},
        {"model": replace(REFERENCE, latent_dim=20)},
        {"model": replace(REFERENCE, conv_channels=(16, 64))},
        {"model": replace(REFERENCE, hidden_dims=(512,))},
        {"model": ModelConfig("conv", "bernoulli", 10, 32, None, None)},
        {"epochs": 19},
        {"epochs": 21},
    ],
    ids=lambda settings: str(*settings.values()),
)
def test_a_run_that_is_unlike_the_reference_has_none(settings: dict[str, Any]) -> None:
    assert reference_for(replace(LIKE_IT, **settings)) is None
