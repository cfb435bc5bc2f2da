"""A run trains in memory, and leaves the process to whoever else works in it."""

import os
import random
import signal
import sys
import threading
import time
from collections import deque
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import anonymous_memory, tiny_config
from fork_helpers import FORKS
from safetensors.torch import load_file, save_file
from torch.nn.utils import parameters_to_vector

from vaekit.config import DataConfig, TrainConfig
from vaekit.images.image_set import ImageSet
from vaekit.images.sets import load_images
from vaekit.models.vae import VAE
from vaekit.training import loop
from vaekit.training.interruption import Interrupted
from vaekit.training.losses import Losses
from vaekit.training.ranks import start_accelerator
from vaekit.training.state import Training, kept_row

NUM_STEPS = 12


def in_memory(config: TrainConfig) -> Training:
    return Training(config, load_images(config.data, config.seed), start_accelerator(config))


def gives_memory_back() -> bool | None:
    """Whether the C library does so with a tensor of 64 MB that is freed; None where unknown."""
    if sys.platform != "linux":
        return None
    before = anonymous_memory()
    torch.ones(16_000_000)
    return anonymous_memory() - before < 32e6


def state_of_the_process() -> dict[str, Any]:
    kind, keys, *position = np.random.get_state()
    cudnn = torch.backends.cudnn
    return {
        "signal handlers": {each: signal.getsignal(each) for each in signal.valid_signals()},
        "cuDNN": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "PyTorch's random numbers": torch.get_rng_state().tolist(),
        "NumPy's": (kind, keys.tolist(), position),
        "Python's": random.getstate(),
        "threads of PyTorch": torch.get_num_threads(),
        "threads": threading.enumerate(),
        "memory": gives_memory_back(),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "files": sorted(Path().rglob("*")),
    }


def train_among_others(config: TrainConfig, folder: Path, weights: Path) -> None:
    """Train in memory in a process that has done nothing else, in an empty folder."""
    os.chdir(folder)
    before = state_of_the_process()
    training = in_memory(config)
    deque(loop.run(training), maxlen=0)
    after = state_of_the_process()
    changed = [name for name in before if after[name] != before[name]]
    assert not changed, changed
    save_file(training.ema.state_dict(), weights)


@pytest.mark.slow
def test_training_in_memory_gives_the_commands_weights_and_changes_nothing_of_the_process(
    finished_run: Path, tmp_path: Path
) -> None:
    folder, weights = tmp_path / "folder", tmp_path / "weights.safetensors"
    folder.mkdir()
    process = FORKS.Process(
        target=train_among_others, args=(tiny_config(Path("run")), folder, weights)
    )
    process.start()
    process.join(120)
    assert process.exitcode == 0, "the process says what has changed"
    trained, expected = load_file(weights), load_file(finished_run / "model.safetensors")
    assert trained.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(trained[name], tensor), name


def test_a_run_hands_out_its_epochs_and_each_checkpoint_that_is_due(tmp_path: Path) -> None:
    training = in_memory(tiny_config(tmp_path / "run", checkpoint_every="5steps"))
    events = []
    for event in loop.run(training):
        match event:
            case loop.EpochDone(metrics, None):
                events.append(("epoch", metrics["epoch"], metrics["step"]))
            case loop.EpochDone(metrics, checkpoint):
                events.append(("epoch and checkpoint", metrics["epoch"], checkpoint.step))
            case loop.CheckpointDue(checkpoint):
                events.append(("checkpoint", training.epoch, checkpoint.step))
            case loop.Advanced(epoch, num_steps, losses):
                assert losses is not None
                assert losses.loss == pytest.approx(training.metrics[0]["test_loss"], rel=0.05)
                events.append(("steps", epoch, num_steps))
    assert events == [
        ("epoch", 0, 0),
        ("checkpoint", 1, 5),
        ("steps", 1, 6),
        ("epoch", 1, 6),
        ("checkpoint", 2, 10),
        ("steps", 2, 6),
        ("epoch and checkpoint", 2, NUM_STEPS),
    ]
    assert [row["epoch"] for row in training.metrics] == [0, 1, 2]


@pytest.mark.slow
def test_checkpoints_that_take_long_to_write_are_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    training = in_memory(tiny_config(tmp_path / "run", checkpoint_every="auto", epochs=8))
    written = []
    for event in loop.run(training):
        match event:
            case loop.Advanced(num_steps=num_steps):
                now += num_steps  # a second each, six an epoch
            case loop.EpochDone(metrics, checkpoint) if checkpoint is not None:
                written.append(metrics["epoch"])
                now += 1.5
    assert written == [1, 4, 7, 8]


@pytest.mark.slow
@pytest.mark.parametrize("last_step", [2, 6, 9])
def test_a_run_that_is_asked_to_stop_goes_on_from_its_checkpoint_to_the_same_state(
    last_step: int, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path / "run", input_noise=0.1)
    whole, stopped = in_memory(config), in_memory(config)
    deque(loop.run(whole), maxlen=0)
    with pytest.raises(Interrupted) as request:
        deque(loop.run(stopped, lambda: 143 if stopped.step == last_step else 0), maxlen=0)
    assert request.value.exit_code == 143
    checkpoint = deepcopy(stopped.checkpoint())
    assert checkpoint.step == last_step

    resumed = in_memory(config)
    resumed.restore(checkpoint)
    deque(loop.run(resumed), maxlen=0)
    expected = whole.tensors()
    assert resumed.tensors().keys() == expected.keys()
    for name, tensor in resumed.tensors().items():
        assert torch.equal(tensor, expected[name]), name
    timing = ("seconds", "images_per_second")
    for row, other in zip(resumed.metrics, whole.metrics, strict=True):
        for name in row.keys() - set(timing):
            assert row[name] == other[name], name
    assert not (tmp_path / "run").exists()


WITH_VALIDATION = DataConfig(name="digits", limit=96, validation=0.1)


class ScriptedLosses:
    """In place of evaluations: losses that are best in the second of four epochs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._evaluate = loop.evaluate_weights
        monkeypatch.setattr(loop, "evaluate_weights", self)

    def __call__(self, training: Training, weights: VAE, image_set: ImageSet, *rest: Any) -> Losses:
        if image_set is not training.images.validation:
            return self._evaluate(training, weights, image_set, *rest)
        return Losses((9.0, 5.0, 3.0, 3.0, 4.0)[training.epoch], kl=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("last_step", [5, 13, 23])
def test_the_weights_of_the_best_epoch_are_kept_however_often_the_run_is_stopped(
    last_step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ScriptedLosses(monkeypatch)
    config = tiny_config(tmp_path / "run", data=WITH_VALIDATION, epochs=4)
    training, after = in_memory(config), {}
    for event in loop.run(training):
        if isinstance(event, loop.EpochDone):
            after[training.epoch] = deepcopy(training.ema)
    stopped, resumed = in_memory(config), in_memory(config)
    with pytest.raises(Interrupted):
        deque(loop.run(stopped, lambda: 143 if stopped.step == last_step else 0), maxlen=0)
    resumed.restore(deepcopy(stopped.checkpoint()))
    deque(loop.run(resumed), maxlen=0)

    assert training.config.keep == "best"
    assert [row["kept_epoch"] for row in training.metrics] == [0, 1, 2, 2, 2]
    assert kept_row(training.metrics)["validation_loss"] == 4.0
    kept = after[2].state_dict()
    for each in (training, resumed):
        assert [row["kept_epoch"] for row in each.metrics] == [0, 1, 2, 2, 2]
        for name, tensor in each.kept.state_dict().items():
            assert torch.equal(tensor, kept[name]), name
    assert not torch.equal(
        parameters_to_vector(training.ema.parameters()), parameters_to_vector(after[2].parameters())
    )


@pytest.mark.slow
def test_a_validation_set_changes_no_step_of_a_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", data=WITH_VALIDATION)
    images = load_images(config.data, config.seed)
    watched, plain = (
        Training(config, each, start_accelerator(config))
        for each in (images, replace(images, validation=None))
    )
    assert (watched.config.keep, plain.config.keep) == ("best", "last")
    for training in (watched, plain):
        deque(loop.run(training), maxlen=0)
    for name, tensor in plain.ema.state_dict().items():
        assert torch.equal(tensor, watched.ema.state_dict()[name]), name
    row = watched.metrics[-1]
    assert row["test_loss"] == plain.metrics[-1]["test_loss"]
    assert row["validation_loss"] == pytest.approx(
        row["validation_reconstruction"] + row["validation_kl"]
    )
