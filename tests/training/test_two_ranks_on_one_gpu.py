"""Two ranks share a GPU, over Gloo, since NCCL refuses: the path of several GPUs, for a test."""

import json
import os
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from conftest import tiny_config
from rank_helpers import run_ranks

from vaekit.config import TrainConfig
from vaekit.models.vae import VAE


class OverGloo(PartialState):
    def __init__(self, **settings: Any) -> None:
        super().__init__(backend="gloo", **settings)


def train_over_gloo(config: TrainConfig) -> None:
    """A rank's work: as on a machine of its own, with the same GPU."""
    from vaekit.train import train
    from vaekit.training import ranks

    if "RANK" in os.environ:
        os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        ranks.PATIENCE = timedelta(minutes=1)  # a first step on a GPU takes seconds
        ranks.PartialState = OverGloo  # type: ignore[misc]
    train(config)


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows for name in ("train_loss", "test_loss") if row[name]]


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_two_ranks_on_one_gpu_give_the_losses_of_one(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", batch_size=16, model=VAE().config)
    for num_ranks in (1, 2):
        run = tmp_path / f"{num_ranks}"
        ended = run_ranks(
            partial(train_over_gloo, replace(config, run=str(run))), num_ranks, tmp_path
        )
        assert ended.exit_codes == [0] * num_ranks, ended.errors
        start = json.loads((run / "environment.json").read_text())[-1]
        assert (start["num_processes"], start["device"]) == (
            num_ranks,
            torch.cuda.get_device_name(),
        )
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-4)
