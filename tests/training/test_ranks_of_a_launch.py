"""Precision is chosen from the hardware, and every launched process is a rank."""

import os
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY_FLAGS, assert_one_line_error, launch, run_command, vaekit

from vaekit.config import TrainConfig
from vaekit.errors import UserError
from vaekit.training import ranks as processes
from vaekit.training.ranks import start_accelerator, start_ranks

SCRIPT = Path(processes.__file__).parent.parent / "train.py"


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> "Hardware":
    return Hardware(monkeypatch)


class Hardware:
    """A machine that is not there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.cpu()

    def cpu(self, **capabilities: bool) -> None:
        self._monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        self._monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
        self._monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)

    def gpu(self, *, bf16: bool) -> None:
        self._monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        self._monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        self._monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)

    def launcher(self, precision: str) -> None:
        self._monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)


def test_auto_follows_the_launcher_where_the_hardware_is_native(hardware: Hardware) -> None:
    hardware.launcher("bf16")
    hardware.gpu(bf16=True)
    assert processes._choose_precision("auto") == "bf16"
    hardware.cpu(avx512_bf16=True)
    assert processes._choose_precision("auto") == "bf16"
    hardware.launcher("fp16")
    hardware.gpu(bf16=False)
    assert processes._choose_precision("auto") == "fp16"


def test_auto_uses_float32_elsewhere_and_says_so(
    hardware: Hardware, capsys: pytest.CaptureFixture[str]
) -> None:
    assert processes._choose_precision("auto") == "no"
    assert capsys.readouterr().err == ""
    hardware.launcher("bf16")
    assert processes._choose_precision("auto") == "no"
    assert "asks for bf16, which this device only emulates: using float32" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.parametrize(("is_native", "precision"), [(True, "bf16"), (False, "float32")])
def test_auto_trains_as_the_launcher_s_config_file_says_where_that_is_native(
    is_native: bool, precision: str, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "from vaekit.cli import main; from vaekit.training import ranks; "
        f"ranks.is_native = lambda precision: {is_native}; main()"
    )
    flags = [*TINY_FLAGS, "--mixed_precision", "auto", "--run", tmp_path / "run"]
    result = launch(1, script, "train", *flags)
    assert result.returncode == 0, result.stderr
    assert f"cpu, 1 process(es), {precision}" in result.stdout


def test_an_explicit_flag_wins_over_the_launcher_with_a_warning_where_it_is_slow(
    hardware: Hardware, capsys: pytest.CaptureFixture[str]
) -> None:
    hardware.launcher("bf16")
    assert processes._choose_precision("no") == "no"
    assert capsys.readouterr().err == ""
    assert processes._choose_precision("bf16") == "bf16"
    assert "only emulates bf16, which is slow" in capsys.readouterr().err


def test_fp16_without_a_gpu_is_refused(hardware: Hardware) -> None:
    with pytest.raises(UserError, match="--mixed_precision fp16: needs a GPU; give no, or auto"):
        processes._choose_precision("fp16")


def test_an_unknown_tracker_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"--tracker carrier-pigeon: .*tensorboard"):
        start_accelerator(TrainConfig(tracker="carrier-pigeon"))


def test_a_launcher_that_gives_one_thread_does_not_leave_cores_idle(
    hardware: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(processes, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    processes._use_all_cores(torch.device("cpu"))
    assert threads == []
    hardware.launcher("no")
    processes._use_all_cores(torch.device("cuda"))
    assert threads == []
    processes._use_all_cores(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    processes._use_all_cores(torch.device("cpu"))
    assert threads == [8, 4]


@pytest.mark.injects(18)
def test_fewer_ranks_than_launched_processes_stop_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_ranks()  # one process; Accelerate keeps that for good
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"WORLD_SIZE=2 but Accelerate sees 1 process"):
        start_ranks()


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


@pytest.mark.parametrize("lacking", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
@pytest.mark.injects(18)
def test_a_launch_that_lacks_a_variable_is_refused_instead_of_waiting_for_ranks_that_never_come(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(lacking)
    with pytest.raises(UserError, match=f"WORLD_SIZE=2 without {lacking}"):
        start_ranks()


@pytest.mark.injects(18)
def test_a_rank_beyond_the_world_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="RANK=2: expected from 0 to 1"):
        start_ranks()


@pytest.mark.injects(18)
def test_a_rank_whose_peers_never_come_ends_with_one_line_and_writes_nothing(
    tmp_path: Path,
) -> None:
    code = (
        "from datetime import timedelta; from vaekit import cli; "
        "from vaekit.training import ranks; ranks.PATIENCE = timedelta(seconds=2); cli.main()"
    )
    result = run_command(
        [sys.executable, "-c", code, "train", *TINY_FLAGS, "--run", tmp_path / "run"],
        WORLD_SIZE="2",
        RANK="0",
        LOCAL_RANK="0",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="0",
    )
    assert_one_line_error(result, "WORLD_SIZE=2", "2 seconds")
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
