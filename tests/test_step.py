"""The learning rate and the average of the weights, step by step."""

import numpy as np
import pytest
import torch

from vaekit.config import TrainConfig
from vaekit.step import ema_decay, learning_rate


def test_the_rate_warms_up_and_then_follows_torchs_cosine() -> None:
    config = TrainConfig(learning_rate=0.1, warmup_steps=4)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        warmup = min(1.0, (step + 1) / 4)
        assert learning_rate(config, step, 20) == pytest.approx(warmup * schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert learning_rate(config, 20, 20) == pytest.approx(0)


def test_the_average_soon_forgets_the_initial_weights() -> None:
    config = TrainConfig(ema_decay=0.999)
    share_of_initial = np.prod([ema_decay(config, step) for step in range(220)])
    assert share_of_initial < 1e-6
    assert ema_decay(config, 100_000) == 0.999
    assert ema_decay(TrainConfig(ema_decay=0), 5) == 0
