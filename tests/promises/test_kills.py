"""A run that is killed, whenever that is, loses nothing beyond its last checkpoint.

Nor does an encoding lose more than the part under way.
"""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from conftest import tiny_config
from damage_helpers import copy, snapshot
from kill_helpers import (
    assert_same_result,
    finish,
    newest_step,
    start,
    start_extracting,
)
from rank_helpers import run_ranks

from vaekit.config import DataConfig, TrainConfig
from vaekit.runs import latent_parts
from vaekit.runs.run import Run
from vaekit.stages import latents as latents_module
from vaekit.stages.latents import extract_latents

NUM_KILLS = 50
WITH_VALIDATION = DataConfig(name="digits", limit=96, validation=0.1)  # the best weights are kept


def a_run(path: Path, **changes: object) -> TrainConfig:
    settings = {"checkpoint_every": "5steps", "input_noise": 0.1, "sample_every": 50}
    return tiny_config(path, **(settings | changes))


@pytest.mark.faults
@pytest.mark.injects(1, times=NUM_KILLS)
def test_fifty_kills_at_random_times_change_no_bit_of_the_result(tmp_path: Path) -> None:
    finish(a_run(tmp_path / "whole", epochs=30))
    started = time.monotonic()
    finish(a_run(tmp_path / "again", epochs=30))
    longest_wait = time.monotonic() - started  # so kills come at any time of a run
    waits = random.Random(0)
    num_kills = num_runs = 0
    steps = []
    while num_kills < NUM_KILLS:
        num_runs += 1
        run = tmp_path / f"killed-{num_runs}"
        while True:
            process = start(a_run(run, epochs=30))
            process.join(waits.uniform(0, longest_wait))
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


NUM_KILLS_OF_AN_ENCODING = 16


@pytest.mark.faults
@pytest.mark.injects(2, times=NUM_KILLS_OF_AN_ENCODING)
def test_a_killed_encoding_goes_on_from_the_parts_that_it_had_done(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents_module, "batch_size_on", lambda _: 8)
    monkeypatch.setattr(latent_parts, "MOST_BATCHES", 3)
    whole, encoded, encode = copy(finished_run, tmp_path / "whole"), [], latents_module._encode
    monkeypatch.setattr(latents_module, "_encode", lambda *its: encoded.append(1) or encode(*its))
    extract_latents(Run(whole))
    assert len(encoded) == 8, "parts of both sides"
    found = set()
    for die_at in range(0, 6 * NUM_KILLS_OF_AN_ENCODING, 6):
        run = copy(finished_run, tmp_path / f"killed-{die_at}")
        process = start_extracting(run, die_at)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        num_done = len([*run.glob("latents/.parts-*/[0-9]*")])
        found.add(num_done)
        encoded.clear()
        extract_latents(Run(run))
        assert len(encoded) == 8 - num_done
        assert snapshot(run / "latents") == snapshot(whole / "latents")
    assert found == {*range(9)}


def extract_as_a_rank(run: Path, is_killed: bool) -> None:
    write, num_written = latents_module.write_part, 0

    def write_or_die(*arguments: object) -> None:
        nonlocal num_written
        if is_killed and os.environ.get("RANK") == "1" and num_written == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        write(*arguments)  # type: ignore[arg-type]
        num_written += 1

    latents_module.write_part = write_or_die  # type: ignore[assignment]
    latents_module.batch_size_on = lambda _: 8  # type: ignore[assignment]
    latent_parts.MOST_BATCHES = 3
    extract_latents(Run(run))


@pytest.mark.faults
@pytest.mark.injects(9)
def test_where_a_rank_is_killed_while_encoding_the_next_start_goes_on(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents_module, "batch_size_on", lambda _: 8)
    monkeypatch.setattr(latent_parts, "MOST_BATCHES", 3)
    whole, run = copy(finished_run, tmp_path / "whole"), copy(finished_run, tmp_path / "run")
    extract_latents(Run(whole))
    ended = run_ranks(partial(extract_as_a_rank, run, True), 2, tmp_path)
    assert ended.exit_codes == [2, -signal.SIGKILL], ended.errors
    assert "rank 0 can't go on alone" in ended.errors[0]
    ended = run_ranks(partial(extract_as_a_rank, run, False), 2, tmp_path)
    assert ended.exit_codes == [0, 0], ended.errors
    assert "train_latents.npy: 24 of 96 images are still to be encoded" in ended.errors[0]
    assert snapshot(run / "latents") == snapshot(whole / "latents")
