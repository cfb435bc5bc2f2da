"""Several processes and machines: their number may change, and a lost one costs no step kept."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import ROOT, launch, run_command, tiny_config
from kill_helpers import assert_same_result, newest_step
from rank_helpers import PATIENCE, Fate, run_ranks, train_in_ranks

from vaekit.config import TrainConfig
from vaekit.runs.checkpoints import load_checkpoint
from vaekit.settings import write_config
from vaekit.training.ranks import ImageRanks, lost_ranks_in_one_line, start_ranks

NUM_STEPS = 48


def a_run(path: Path) -> TrainConfig:
    """A run of 48 steps with checkpoints within its epochs, for 1, 2 or 3 ranks."""
    path.parent.mkdir(exist_ok=True)
    return tiny_config(
        path,
        epochs=6,
        batch_size=12,
        checkpoint_every="5steps",
        input_noise=0.1,
        augment=True,
        augment_share=0.7,  # one rank's images, and some of another's
        augment_until=0.7,
        sample_every=50,
    )


def one_error(text: str) -> str:
    (line,) = [
        line
        for line in text.splitlines()
        if line.startswith("vaekit: ") and "warning" not in line  # of how few the steps are
    ]
    assert "Traceback" not in text
    return line


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that nobody disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert train_in_ranks(a_run(run), 2).exit_codes == [0, 0]
    return run


@pytest.mark.injects(9)
def test_the_number_of_processes_may_change_at_every_resume(tmp_path: Path) -> None:
    changed, whole = a_run(tmp_path / "changed"), a_run(tmp_path / "whole")
    begun = train_in_ranks(changed, 1, Fate(rank=0, step=17, signal=signal.SIGTERM))
    assert begun.exit_codes == [143]
    assert newest_step(tmp_path / "changed") == 18
    cut_off = train_in_ranks(changed, 2, Fate(rank=1, step=38, signal=signal.SIGKILL))
    assert cut_off.exit_codes == [2, -signal.SIGKILL]
    assert newest_step(tmp_path / "changed") == 35
    ended = train_in_ranks(changed, 1)
    assert ended.exit_codes == [0]
    assert "num_processes: 2 -> 1" in one_error(ended.errors[0])
    assert train_in_ranks(whole, 1).exit_codes == [0]
    one, other = (
        load_checkpoint(tmp_path / name / "checkpoints" / f"step-{NUM_STEPS:08d}.safetensors")
        for name in ("changed", "whole")
    )
    assert one.metadata.keys() == other.metadata.keys()
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(tensor, other.tensors[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, "another process has ended or is cut off"),
        (signal.SIGSTOP, "rank {rank} does not answer"),
    ],
    ids=["killed", "stalled"],
)
@pytest.mark.injects(9)
def test_a_lost_rank_ends_the_other_and_the_relaunch_is_exact(
    number: signal.Signals, reason: str, rank: int, tmp_path: Path, whole_run: Path
) -> None:
    config = a_run(tmp_path / "run")
    ended = train_in_ranks(config, 2, Fate(rank, step=23, signal=number))
    assert ended.exit_codes[rank] == -signal.SIGKILL
    assert ended.exit_codes[1 - rank] == 2
    line = one_error(ended.errors[1 - rank])
    assert f"rank {1 - rank} can't go on alone: {reason.format(rank=rank)}" in line
    assert line.endswith("; the same command starts again or goes on")
    assert newest_step(tmp_path / "run") == 20
    assert train_in_ranks(config, 2).exit_codes == [0, 0]
    assert_same_result(tmp_path / "run", whole_run)


@pytest.mark.faults
@pytest.mark.injects(3)
def test_a_signal_to_one_of_two_ranks_stops_both_after_the_same_step(
    tmp_path: Path, whole_run: Path
) -> None:
    config = a_run(tmp_path / "run")
    ended = train_in_ranks(config, 2, Fate(rank=1, step=23, signal=signal.SIGTERM))
    assert ended.exit_codes == [143, 143], ended.errors
    assert f"stopped after step {newest_step(tmp_path / 'run'):,};" in ended.errors[0]
    assert train_in_ranks(config, 2).exit_codes == [0, 0]
    assert_same_result(tmp_path / "run", whole_run)


@pytest.mark.faults
@pytest.mark.injects(9)
def test_of_three_ranks_the_stalled_one_is_named_by_the_main_one(tmp_path: Path) -> None:
    config = a_run(tmp_path / "run")
    ended = train_in_ranks(config, 3, Fate(rank=1, step=23, signal=signal.SIGSTOP))
    assert ended.exit_codes == [2, -signal.SIGKILL, 2]
    assert "rank 1 does not answer" in one_error(ended.errors[0])
    assert "another process has ended or is cut off" in one_error(ended.errors[2])


def load_slowly() -> None:
    ranks = start_ranks()
    with ImageRanks(ranks).first_on_each_machine():
        if ranks.is_local_main_process:
            time.sleep(PATIENCE + 1)
    ranks.destroy_process_group()


def test_a_rank_that_decodes_the_images_for_the_others_is_waited_for(tmp_path: Path) -> None:
    ended = run_ranks(load_slowly, 2, tmp_path)
    assert ended.exit_codes == [0, 0], ended.errors


def die_loading() -> None:
    with lost_ranks_in_one_line():
        ranks = start_ranks()
        with ImageRanks(ranks).first_on_each_machine():
            if ranks.is_local_main_process:
                time.sleep(1)
                os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.injects(9)
def test_a_rank_that_dies_while_it_decodes_is_not_waited_for(tmp_path: Path) -> None:
    ended = run_ranks(die_loading, 2, tmp_path)
    assert ended.exit_codes == [-signal.SIGKILL, 2]
    assert "another process has ended or is cut off" in one_error(ended.errors[1])


LAUNCHED = """
import os, signal, sys, time
from datetime import timedelta
from pathlib import Path
from vaekit.training import process, ranks
from vaekit.cli import main
from vaekit.training.step import Stepper

process.cpu_count = lambda: 1  # one thread a rank, as the forked ones have
ranks.PATIENCE = timedelta(seconds=10)
ranks.ROLL_CALL = timedelta(seconds=1)
advance = Stepper.advance

def advance_or_not(stepper, step):
    if step == 23 and os.environ["RANK"] == "1":
        meet_fate()
    advance(stepper, step)

Stepper.advance = advance_or_not
"""

IS_LOST_ONCE = """
def meet_fate():
    lost = Path(sys.argv[0] + ".lost")
    if not lost.exists():
        lost.touch()
        os.kill(os.getpid(), signal.{signal})

main()
"""

WAITS_FOR_THE_CUT = """
def meet_fate():
    Path(sys.argv[0] + ".waits").touch()
    while not Path(sys.argv[0] + ".cut").exists():
        time.sleep(0.1)

main()
"""


def launched(folder: Path, fate: str) -> list[object]:
    """A script that trains `a_run` in `folder`, and its arguments."""
    script, settings = folder / "train.py", folder / "settings.yaml"
    script.write_text(LAUNCHED + fate)
    write_config(settings, a_run(folder / "run"))
    return [script, "train", "--config", settings]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("launcher", "number", "words"),
    [
        ("accelerate", "SIGKILL", "(exitcode: -9) local_rank: 1"),
        ("torchrun", "SIGKILL", "(exitcode: -9) local_rank: 1"),
        ("accelerate", "SIGSTOP", "rank 0 can't go on alone: rank 1 does not answer"),
    ],
)
@pytest.mark.injects(9)
def test_a_launcher_that_may_restart_names_the_lost_rank_and_the_run_ends_by_itself(
    launcher: str, number: str, words: str, tmp_path: Path, whole_run: Path
) -> None:
    script = launched(tmp_path, IS_LOST_ONCE.format(signal=number))
    if launcher == "accelerate":
        result = launch(2, "--max_restarts", "1", *script)
    else:
        result = run_command(
            ["torchrun", "--standalone", "--nproc_per_node", "2", "--max_restarts", "1", *script]
        )
    assert words in result.stderr
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "train.py.lost").exists()
    assert f"{NUM_STEPS} in all, 20 of them done" in result.stdout
    assert_same_result(tmp_path / "run", whole_run)


ADDRESSES = ("198.18.0.1", "198.18.0.2")


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """Two network namespaces with addresses of their own and a cable between them."""
    if shutil.which("ip") is None:
        pytest.skip("two machines: `ip` (iproute2) is not installed")
    one, other = names = f"vaekit-{os.getpid()}-0", f"vaekit-{os.getpid()}-1"
    made = run_command(["ip", "netns", "add", one])
    if made.returncode != 0:
        pytest.skip(f"two machines: network namespaces are not permitted ({made.stderr.strip()})")
    try:
        ip("netns", "add", other)
        ip("-n", one, "link", "add", "cable", "type", "veth", "peer", "cable", "netns", other)
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for link in ("lo", "cable"):
                ip("-n", name, "link", "set", link, "up")
        yield one, other
    finally:
        for name in names:
            run_command(["ip", "netns", "delete", name])


def ip(*arguments: str) -> None:
    result = run_command(["ip", *arguments])
    assert result.returncode == 0, result.stderr


@contextmanager
def launch_on(
    machines: Sequence[str], *arguments: object
) -> "Iterator[list[subprocess.Popen[str]]]":
    """The launcher of each machine; every one starts one rank."""
    config_file = ["--config_file", str(ROOT / "accelerate_config.yaml"), "--num_machines", "2"]
    meeting = ["--main_process_ip", ADDRESSES[0], "--main_process_port", "29500"]
    launchers = []
    for rank, machine in enumerate(machines):
        place = ["ip", "netns", "exec", machine, sys.executable, "-m", "accelerate.commands.launch"]
        numbers = ["--num_processes", "2", "--machine_rank", str(rank)]
        launchers.append(
            subprocess.Popen(
                [*place, *config_file, *meeting, *numbers, *(str(each) for each in arguments)],
                env={**os.environ, "GLOO_SOCKET_IFNAME": "cable"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        yield launchers
    finally:
        for launcher in launchers:
            launcher.kill()  # its rank notices


@pytest.mark.faults
@pytest.mark.injects(9)
def test_two_machines_of_which_one_is_cut_off_end_and_their_relaunch_is_exact(
    tmp_path: Path, machines: tuple[str, str], whole_run: Path
) -> None:
    arguments = launched(tmp_path, WAITS_FOR_THE_CUT)
    with launch_on(machines, *arguments) as launchers:
        while not (tmp_path / "train.py.waits").exists():
            assert all(launcher.poll() is None for launcher in launchers)
            time.sleep(0.1)
        ip("-n", machines[1], "link", "set", "cable", "down")
        (tmp_path / "train.py.cut").touch()
        for rank, launcher in enumerate(launchers):
            _, errors = launcher.communicate(timeout=120)
            assert launcher.returncode != 0
            assert f"rank {rank} can't go on alone: rank {1 - rank} does not answer" in errors
    assert newest_step(tmp_path / "run") == 20

    ip("-n", machines[1], "link", "set", "cable", "up")
    with launch_on(machines, *arguments) as launchers:
        for launcher in launchers:
            _, errors = launcher.communicate(timeout=120)
            assert launcher.returncode == 0, errors
    assert_same_result(tmp_path / "run", whole_run)
