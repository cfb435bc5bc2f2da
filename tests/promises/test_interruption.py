"""Asked to stop, a run finishes its step, keeps what it has done, and goes on exactly."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, TINY_FLAGS, environment_with, launch
from kill_helpers import assert_same_result, newest_step

LONG = [*TINY_FLAGS, "--epochs", "30", "--sample_every", "30", "--input_noise", "0.1"]
LONG += ["--checkpoint_every", "4steps"]


def start(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(argument) for argument in arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment_with({}),
    )


SECOND_SIGNAL = """
import os, signal, sys, time
from vaekit.training.interruption import Interruption
number = signal.Signals(int(sys.argv[1]))
with Interruption() as interruption:
    assert interruption.exit_code == 0
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # the launcher's echo of the same Ctrl-C
    print(interruption.exit_code, flush=True)
    time.sleep(1.1)
    os.kill(os.getpid(), number)
    print("still here")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.injects(3)
def test_a_second_signal_stops_at_once_and_an_echo_of_the_first_does_not(
    number: signal.Signals,
) -> None:
    process = start(sys.executable, "-c", SECOND_SIGNAL, number.value)
    output, errors = process.communicate(timeout=60)
    assert output.split() == [str(128 + number)], errors
    assert process.returncode == -number


def children(process_id: int) -> list[int]:
    listing = Path(f"/proc/{process_id}/task/{process_id}/children")
    return [int(each) for each in listing.read_text().split()]


@pytest.fixture
def trainers() -> Iterator[list[int]]:
    """Processes to be ended with the test, whatever came of it."""
    process_ids: list[int] = []
    yield process_ids
    for process_id in process_ids:
        if Path(f"/proc/{process_id}").exists():
            os.kill(process_id, signal.SIGKILL)


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.injects(3)
def test_a_trainer_whose_launcher_has_died_stops_with_a_checkpoint(
    tmp_path: Path, trainers: list[int]
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    flags = [*LONG, "--run", run]
    result = launch(1, "vaekit/train.py", *LONG, "--run", whole)
    assert result.returncode == 0, result.stderr
    config_file = ["--config_file", ROOT / "accelerate_config.yaml"]
    launcher = start("accelerate", "launch", *config_file, "vaekit/train.py", *flags)
    while not any((run / "checkpoints").glob("step-*.safetensors")):
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.02)
    trainers += children(launcher.pid)
    assert len(trainers) == 1
    launcher.kill()
    launcher.communicate(timeout=60)  # the trainer has its pipes, and closes them at its end
    assert 0 < newest_step(run) < newest_step(whole)
    result = launch(1, "vaekit/train.py", *flags)
    assert result.returncode == 0, result.stderr
    assert_same_result(run, whole)
