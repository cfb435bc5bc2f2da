"""Every launched process is a rank, or the work stops."""

import os
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import is_compiled_module
from conftest import ROOT, TINY_FLAGS, assert_one_line_error, run_command, tiny_config, vaekit
from rank_helpers import PATIENCE, run_ranks

from vaekit.config import TrainConfig
from vaekit.errors import UserError
from vaekit.runs.run import Run
from vaekit.stages.latents import extract_latents
from vaekit.train import train
from vaekit.training import ranks
from vaekit.training.ranks import start_accelerator, start_ranks

SCRIPT = ROOT / "vaekit" / "train.py"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_USE_FSDP", "true"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
    ],
)
def test_what_a_launcher_asks_for_and_no_step_does_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{name}.*launch"):
        start_accelerator(TrainConfig())


@pytest.mark.parametrize(("backend", "words"), [("INDUCTOR", "dynamo (inductor)"), ("NO", "")])
def test_a_compiler_that_is_not_used_is_said_in_a_line(
    backend: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", backend)
    AcceleratorState._reset_state()  # it keeps the backend of the first
    accelerator = start_accelerator(TrainConfig(mixed_precision="no"))
    assert not is_compiled_module(accelerator.prepare(torch.nn.Linear(1, 1)))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(words)
    assert words in "".join(lines)


@pytest.mark.injects(18)
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setitem(os.environ, "LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"2 processes .* 1 GPU.* --num_processes 1`"):
        start_ranks()


@pytest.mark.injects(18)
def test_fewer_ranks_than_launched_processes_stop_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_ranks()  # one process; Accelerate keeps that for good
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"WORLD_SIZE=2 but Accelerate sees 1 process"):
        start_ranks()


@pytest.mark.slow
@pytest.mark.parametrize("world_size", ["0", "3"])
@pytest.mark.injects(18)
def test_latents_of_fewer_ranks_than_launched_leave_the_run_as_it_is(
    world_size: str, finished_run: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    result = vaekit("latents", finished_run, WORLD_SIZE=world_size)
    assert_one_line_error(result, f"WORLD_SIZE={world_size} but Accelerate sees 1 process(es)")
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before


@pytest.mark.parametrize("world_size", ["", "two", "1.5"])
@pytest.mark.injects(18)
def test_a_world_size_that_is_no_number_is_named(
    world_size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world_size)
    with pytest.raises(UserError, match=f"WORLD_SIZE={world_size!r}: expected"):
        start_ranks()


@pytest.mark.parametrize(
    ("rank", "lacking", "words"),
    [
        ("0", "RANK", "WORLD_SIZE=2 without RANK"),
        ("0", "MASTER_ADDR", "WORLD_SIZE=2 without MASTER_ADDR"),
        ("0", "MASTER_PORT", "WORLD_SIZE=2 without MASTER_PORT"),
        ("2", "", "RANK=2: expected from 0 to 1"),
    ],
)
@pytest.mark.injects(18)
def test_a_launch_that_can_never_meet_is_refused_instead_of_waiting_for_it(
    rank: str, lacking: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    for name, value in launched.items():
        if name != lacking:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words):
        start_ranks()


def train_where_the_others_never_come(config: TrainConfig) -> None:
    if os.environ["RANK"] == "0":
        train(config)


@pytest.mark.slow
@pytest.mark.injects(18)
def test_a_rank_whose_peers_never_come_ends_with_one_line_and_writes_nothing(
    tmp_path: Path,
) -> None:
    config = tiny_config(tmp_path / "run")
    ended = run_ranks(partial(train_where_the_others_never_come, config), 2, tmp_path)
    assert ended.exit_codes == [2, 0]
    (line,) = [line for line in ended.errors[0].splitlines() if line.startswith("vaekit: error:")]
    assert "WORLD_SIZE=2" in line
    assert f"{PATIENCE:.0f} seconds" in line
    assert "Traceback" not in ended.errors[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.faults
def test_a_launcher_that_starts_one_process_of_two_has_it_do_the_work_and_say_so(
    tmp_path: Path,
) -> None:
    """Nothing that it sets tells that there should be another."""
    command = ["accelerate", "launch", "--cpu", "--num_processes", "2", "--main_process_port", "0"]
    result = run_command([*command, SCRIPT, *TINY_FLAGS, "--run", tmp_path / "run"])
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("before training") == 1
    assert "cpu, 1 process(es)" in result.stdout


def train_and_encode_twice(config: TrainConfig) -> None:
    ranks.PATIENCE = timedelta(minutes=2)  # the main one measures baselines meanwhile
    run = train(config)
    for _ in range(2):
        extract_latents(run)


@pytest.mark.slow
def test_one_launch_trains_and_then_encodes(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", epochs=1)
    ended = run_ranks(partial(train_and_encode_twice, config), 2, tmp_path)
    assert ended.exit_codes == [0, 0], ended.errors
    latents = np.load(tmp_path / "run" / "latents" / "test_latents.npy")
    extract_latents(Run(tmp_path / "run"))
    alone = np.load(tmp_path / "run" / "latents" / "test_latents.npy")
    np.testing.assert_allclose(latents, alone, rtol=0, atol=1e-5)
