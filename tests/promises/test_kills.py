"""A run that is killed, whenever that is, loses nothing beyond its last checkpoint."""

import random
import signal
from pathlib import Path

import pytest
from conftest import tiny_config
from kill_helpers import assert_same_result, finish, newest_step, start

from vaekit.config import DataConfig, TrainConfig

NUM_KILLS = 50
LONGEST_WAIT = 3.0  # seconds from the start of a process to its death
WITH_VALIDATION = DataConfig(name="digits", limit=96, validation=0.1)  # the best weights are kept


def a_run(path: Path, **changes: object) -> TrainConfig:
    settings = {"checkpoint_every": "5steps", "input_noise": 0.1, "sample_every": 50}
    return tiny_config(path, **(settings | changes))


@pytest.mark.faults
@pytest.mark.injects(1, times=NUM_KILLS)
def test_fifty_kills_at_random_times_change_no_bit_of_the_result(tmp_path: Path) -> None:
    whole = a_run(tmp_path / "whole", epochs=60)
    finish(whole)
    waits = random.Random(0)
    num_kills = num_runs = 0
    steps = []
    while num_kills < NUM_KILLS:
        num_runs += 1
        run = tmp_path / f"killed-{num_runs}"
        while True:
            process = start(a_run(run, epochs=60))
            process.join(waits.uniform(0, LONGEST_WAIT))
            process.kill()
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            num_kills += 1
            steps.append(newest_step(run))
        assert_same_result(run, tmp_path / "whole")
    assert any(step % 6 for step in steps), "no kill came within an epoch"


@pytest.mark.faults
@pytest.mark.injects(2, times=4)
def test_a_kill_at_each_step_of_the_checkpoint_protocol_is_survived(tmp_path: Path) -> None:
    finish(a_run(tmp_path / "whole", data=WITH_VALIDATION))
    steps, exit_codes = [], []
    for operation in range(20):
        config = a_run(tmp_path / str(operation), data=WITH_VALIDATION)
        process = start(config, die_at=operation)
        process.join(60)
        exit_codes.append(process.exitcode)
        if process.exitcode != -signal.SIGKILL:
            break
        steps.append(newest_step(tmp_path / str(operation)))
        finish(config)
        assert_same_result(tmp_path / str(operation), tmp_path / "whole")
    assert exit_codes[-1] == 77
    assert len(steps) >= 4
    assert set(steps) == {5, 10}, "the second one counts from the rename on"
    assert steps == sorted(steps)
