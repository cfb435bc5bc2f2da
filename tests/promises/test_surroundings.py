"""The same results wherever it runs: odd folders, no home, no network, a clock that is wrong."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from conftest import (
    ROOT,
    TINY_FLAGS,
    run_command,
    tiny_config,
)
from damage_helpers import Refused
from kill_helpers import assert_same_result

from vaekit.cli import main
from vaekit.runs.run import Run
from vaekit.train import train

ODD_FOLDER = "mes données & $HOME; it's ü"
ODD_RUN = "ma course/n° 1 - été"

# Each line of standard input is a command; there is no network and no such user.
ALONE = """
import pwd, shlex, sys

def unknown(_):
    raise KeyError("uid not found")

def unreachable(event, _):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise OSError(101, "Network is unreachable")

pwd.getpwuid = pwd.getpwnam = unknown
sys.addaudithook(unreachable)
from vaekit.cli import main
for line in sys.stdin:
    main(shlex.split(line))
"""


def run_alone(*commands: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Commands in one process, whose only variables are those given here."""
    needed = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    needed |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", ALONE],
        cwd=cwd,
        env=needed | variables,
        input="\n".join(commands),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run in an odd folder, which a test may change."""
    shutil.copytree(finished_run, tmp_path / ODD_FOLDER / ODD_RUN)
    return tmp_path / ODD_FOLDER / ODD_RUN


@pytest.mark.injects(20)
def test_each_stage_in_an_odd_folder_names_the_next_one_as_a_shell_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ODD_FOLDER).mkdir()
    monkeypatch.chdir(tmp_path / ODD_FOLDER)
    command: str | None = f"vaekit train {shlex.join([*TINY_FLAGS, '--run', ODD_RUN])}"
    stages = []
    while command is not None:
        words = shlex.split(command)
        stages.append(words[1])
        main(words[1:])
        (*_, last) = capsys.readouterr().out.splitlines()
        found = re.search(r"   next: (vaekit .*)", last)
        command = found and found[1]
    assert stages == ["train", "latents", "svm", "report"]
    assert Path(ODD_RUN, "report.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == [ODD_FOLDER]


@pytest.mark.parametrize(
    ("variables", "stages"),
    [
        ({"HOME": "/dev/null/home", "LC_ALL": "POSIX"}, ["latents {}", "svm {}"]),
        pytest.param(
            {"LC_ALL": "C"},
            ["latents {}", "svm {}", "report {}", "export {}", "export --check {}/onnx"],
            marks=pytest.mark.faults,
        ),
    ],
    ids=["no folder at HOME", "no HOME"],
)
@pytest.mark.skipif(
    torch.__version__ < "2.13", reason="PyTorch before 2.13 asks for the name of the user itself"
)
@pytest.mark.injects(20)
def test_without_a_home_a_user_or_a_network_every_stage_works(
    variables: dict[str, str], stages: list[str], finished_run: Path, tmp_path: Path
) -> None:
    run = shlex.quote(ODD_RUN)
    commands = [f"train {shlex.join(TINY_FLAGS)} --run {{}}", *stages]
    result = run_alone(*(each.format(run) for each in commands), cwd=tmp_path, **variables)
    assert result.returncode == 0, result.stderr
    assert_same_result(tmp_path / ODD_RUN, finished_run)
    assert [path.name for path in tmp_path.iterdir()] == [Path(ODD_RUN).parts[0]]


@pytest.mark.faults
@pytest.mark.injects(20)
def test_two_processes_need_no_network_but_the_loopback(tmp_path: Path) -> None:
    loopback_alone = ["unshare", "--user", "--map-root-user", "--net", "bash", "-c"]
    allowed = run_command([*loopback_alone, "ip link set lo up"])
    if allowed.returncode:
        pytest.skip(f"network namespaces are not permitted here: {allowed.stderr.strip()}")
    launching = shlex.join(
        f"accelerate launch --config_file {ROOT}/accelerate_config.yaml --num_processes 2 "
        f"--main_process_port 0 {ROOT}/vaekit/train.py".split()
    )
    training = shlex.join([*TINY_FLAGS, "--run", str(tmp_path / "run")])
    result = run_command([*loopback_alone, f"ip link set lo up; {launching} {training}"])
    assert result.returncode == 0, result.stderr
    assert "cpu, 2 process(es)" in result.stdout


@pytest.mark.injects(20)
def test_checking_a_bundle_tells_nobody_and_leaves_nothing_at_home(
    exported_run: Path, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    subprocess.run(
        [sys.executable, "-m", "vaekit.export.verify", exported_run / "onnx"],
        env=environment | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["folder", "mnist"])
@pytest.mark.injects(20)
def test_a_tilde_without_a_home_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where there is no such user
    line = refused("train", "--data.name", name, "--data.root", "~/x", "--run", tmp_path / "run")
    assert "--data.root ~/x" in line


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that root can't write")
@pytest.mark.injects(20)
def test_in_a_folder_that_cannot_be_written_a_run_elsewhere_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.chdir("/proc/self")
    main(["train", *TINY_FLAGS, "--run", str(tmp_path / "run")])
    main(["latents", str(tmp_path / "run")])
    refused("train", *TINY_FLAGS)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.injects(20)
def test_a_name_that_the_terminal_cannot_show_is_escaped(
    encoding: str, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "変分"
    shutil.copytree(finished_run, run)
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    main(["latents", str(run)])
    assert r"\u5909\u5206" in shown.getvalue().decode(encoding)


@pytest.mark.parametrize("flag", ["--run", "--data.root"])
@pytest.mark.injects(20)
def test_a_path_that_is_not_utf_8_is_refused_before_anything_is_written(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    """YAML and JSON can't hold it, so the run could not be resumed."""
    monkeypatch.chdir(tmp_path)
    latin_1 = os.fsdecode(b"caf\xe9")
    assert "UTF-8" in refused("train", *TINY_FLAGS, "--run", "run", flag, latin_1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.injects(20)
def test_the_newest_checkpoint_is_that_of_the_last_step_whatever_the_clock_said(
    run: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early, late = sorted((run / "checkpoints").iterdir())
    os.utime(early, (4e9, 4e9))
    os.utime(late, (0, 0))
    train(tiny_config(run))
    assert "12 in all, 12 of them done" in capsys.readouterr().out
    assert_same_result(run, finished_run)


@pytest.mark.parametrize("recorded_at", [0, 4e9], ids=["1970", "2096"])
@pytest.mark.injects(20)
def test_a_run_resumed_under_another_clock_comes_to_the_same_weights(
    recorded_at: float, run: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    max((run / "checkpoints").iterdir()).unlink()  # the rest of the second epoch is to be done
    (start,) = json.loads((run / "environment.json").read_text())
    start["time"] = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(recorded_at))
    (run / "environment.json").write_text(json.dumps([start]))
    for path in run.rglob("*"):
        os.utime(path, (recorded_at, recorded_at))
    backwards = (1e9 - each for each in count())
    monkeypatch.setattr(time, "time", lambda: next(backwards))
    train(tiny_config(run))
    main(["latents", str(run)])
    main(["svm", str(run)])
    assert_same_result(run, finished_run)
    assert all(row["seconds"] is None or row["seconds"] > 0 for row in Run(run).metrics)
    assert (run / "svm" / "svm.safetensors").read_bytes() == (
        finished_run / "svm" / "svm.safetensors"
    ).read_bytes()
