"""Signals at awkward moments, two writers, changed settings and NaN: no run is lost or torn."""

import json
import os
import pkgutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from conftest import TINY_FLAGS, tiny_config
from damage_helpers import Refused, copy, snapshot
from fork_helpers import FORKS
from image_helpers import write_noise
from kill_helpers import assert_same_result, finish, newest_step
from rank_helpers import run_ranks, train_in_ranks
from safetensors.numpy import load_file
from safetensors.torch import save_file

from vaekit.cli import main
from vaekit.config import SvmConfig, TrainConfig, fields_by_flag, flatten, to_dict
from vaekit.runs.checkpoints import load_checkpoint, save_checkpoint
from vaekit.runs.folder import RunFolder
from vaekit.runs.run import Run
from vaekit.settings import write_config
from vaekit.stages import svm as svm_module
from vaekit.stages.svm import fit_svm
from vaekit.train import train
from vaekit.training import loop, precision, state
from vaekit.training.state import Training

NUM_STEPS = 12


class Moment(NamedTuple):
    """In the given call of a function, or right after it; the step that is done by then."""

    function: str
    call: int
    step: int
    is_after: bool = False


# Two epochs of six steps, a checkpoint every five. An epoch writes its weights, then pictures.
MOMENTS = {
    "before the model is set up": Moment("vaekit.train:set_up", 1, 0),
    "set up, before the first step": Moment("vaekit.train:announce", 1, 0, is_after=True),
    "in the evaluation before training": Moment("vaekit.training.loop:evaluate", 1, 0),
    "in the evaluation of an epoch": Moment("vaekit.training.loop:evaluate", 2, 6),
    "while pictures are drawn": Moment("vaekit.train:write_pictures", 2, 7),
    "before a checkpoint is written": Moment("vaekit.train:save_checkpoint", 1, 6),
    "while a checkpoint is written": Moment(
        "vaekit.storage.tensors:save_file", 2, 6, is_after=True
    ),
    "while an old one is pruned": Moment("vaekit.runs.checkpoints:_newest_first", 3, 11),
    "in the last step": Moment("vaekit.training.step:Stepper.advance", NUM_STEPS, 12),
    "in the last evaluation": Moment("vaekit.training.loop:evaluate", 3, 12),
}


def a_run(path: Path, **changes: Any) -> TrainConfig:
    augmentation = {"augment": True, "augment_share": 0.3, "augment_until": 0.7}
    settings = {"checkpoint_every": "5steps", "input_noise": 0.1, **augmentation}
    return tiny_config(path, **(settings | changes))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    finish(a_run(run))
    return run


def act_at(moment: Moment, act: Any) -> None:
    """Have `act` called at a moment of this process."""
    module, name = moment.function.split(":")
    *owner, attribute = name.split(".")
    place = pkgutil.resolve_name(f"{module}:{'.'.join(owner)}" if owner else module)
    function, calls = getattr(place, attribute), [0]

    def watched(*arguments: Any, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] == moment.call and not moment.is_after:
            act()
        result = function(*arguments, **settings)
        if calls[0] == moment.call and moment.is_after:
            act()
        return result

    setattr(place, attribute, watched)


def train_with_signals(
    config: TrainConfig, signals: Sequence[tuple[Moment, signal.Signals]], errors: Path
) -> None:
    """`vaekit train` in this process, which sends itself signals; what it says is in a file."""
    from vaekit.training import interruption

    with errors.open("w") as file:
        os.dup2(file.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    interruption.SAME_REQUEST = 0.0  # no second is an echo of the first
    for moment, number in signals:
        act_at(moment, lambda number=number: os.kill(os.getpid(), number))
    settings = errors.with_suffix(".yaml")
    write_config(settings, config)
    main(["train", "--config", str(settings)])


def start(
    config: TrainConfig, errors: Path, *signals: tuple[Moment, signal.Signals]
) -> BaseProcess:
    process = FORKS.Process(target=train_with_signals, args=(config, signals, errors))
    process.start()
    return process


def exit_code(config: TrainConfig, errors: Path, *signals: tuple[Moment, signal.Signals]) -> int:
    process = start(config, errors, *signals)
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
@pytest.mark.injects(3)
def test_a_signal_at_an_awkward_moment_leaves_one_line_and_a_run_that_goes_on_exactly(
    moment: Moment, number: signal.Signals, whole_run: Path, tmp_path: Path
) -> None:
    run, errors = tmp_path / "run", tmp_path / "errors"
    assert exit_code(a_run(run), errors, (moment, number)) == 128 + number
    (line,) = [line for line in errors.read_text().splitlines() if "warning" not in line]
    assert line == (
        f"vaekit: stopped after step {moment.step}; `{RunFolder(run).train_again}` "
        f"goes on from there"
    )
    assert newest_step(run) == moment.step
    assert not list(run.rglob(".tmp*"))
    finish(a_run(run))
    assert_same_result(run, whole_run)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.injects(3)
def test_a_second_signal_within_the_checkpoint_ends_the_run_at_once_and_tears_nothing(
    number: signal.Signals, whole_run: Path, tmp_path: Path
) -> None:
    run, errors = tmp_path / "run", tmp_path / "errors"
    first = Moment("vaekit.training.step:Stepper.advance", 7, 7)
    second = Moment("vaekit.storage.tensors:save_file", 4, 7, is_after=True)  # the checkpoint of 7
    assert exit_code(a_run(run), errors, (first, number), (second, number)) == -number
    assert newest_step(run) == 5
    assert [path.name for path in run.rglob(".tmp*")] == [".tmp-step-00000007.safetensors"]
    finish(a_run(run))
    assert_same_result(run, whole_run)
    assert not list(run.rglob(".tmp*"))


@pytest.mark.faults
def test_a_signal_while_the_last_picture_is_drawn_comes_too_late_to_matter(
    whole_run: Path, tmp_path: Path
) -> None:
    run, errors = tmp_path / "run", tmp_path / "errors"
    moment = Moment("vaekit.train:write_pictures", 3, NUM_STEPS)
    assert exit_code(a_run(run), errors, (moment, signal.SIGTERM)) == 0
    assert_same_result(run, whole_run)


def halt(process: BaseProcess) -> None:
    """Have a process stand still where it is."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    status = Path(f"/proc/{process.pid}/stat")
    while status.read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.injects(7)
def test_while_a_run_trains_other_writers_are_refused_and_it_ends_as_if_alone(
    tmp_path: Path, refused: Refused
) -> None:
    whole, run = a_run(tmp_path / "whole", epochs=15), a_run(tmp_path / "run", epochs=15)
    finish(whole)
    process = start(run, tmp_path / "errors")
    while not list(tmp_path.glob("run/checkpoints/step-*")):
        assert process.exitcode is None
        time.sleep(0.01)
    halt(process)
    before = snapshot(tmp_path / "run")
    for command in (["train", *TINY_FLAGS, "--run"], ["latents"]):
        line = refused(*command, tmp_path / "run")
        assert f"{tmp_path / 'run'}: another process is writing to this run folder" in line
    assert snapshot(tmp_path / "run") == before
    assert process.pid is not None
    os.kill(process.pid, signal.SIGCONT)
    process.join(120)
    assert process.exitcode == 0, (tmp_path / "errors").read_text()
    assert_same_result(tmp_path / "run", tmp_path / "whole")


@pytest.mark.injects(7)
def test_of_two_fits_at_once_the_second_is_refused_and_the_first_is_whole(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    run = copy(finished_run, tmp_path / "run")
    is_fitting, go_on, fit = threading.Event(), threading.Event(), svm_module.fit_table

    def fit_slowly(*arguments: Any) -> Any:
        is_fitting.set()
        assert go_on.wait(60)
        return fit(*arguments)

    monkeypatch.setattr(svm_module, "fit_table", fit_slowly)
    first = threading.Thread(target=fit_svm, args=(Run(run), SvmConfig()))
    first.start()
    assert is_fitting.wait(60)
    before = snapshot(run)
    assert "another process is writing" in refused("svm", run)
    assert snapshot(run) == before
    go_on.set()
    first.join(60)
    table = "svm/svm.safetensors"
    assert (run / table).read_bytes() == (finished_run / table).read_bytes()


@pytest.mark.faults
@pytest.mark.injects(7)
def test_of_several_starts_in_one_new_folder_one_trains_and_the_others_are_refused(
    whole_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    processes = [start(a_run(run), tmp_path / f"errors-{index}") for index in range(4)]
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    assert 0 in codes
    assert set(codes) <= {0, 2}
    for index, code in enumerate(codes):
        errors = (tmp_path / f"errors-{index}").read_text()
        assert ("another process is writing to this run folder" in errors) == (code == 2)
    assert_same_result(run, whole_run)


@pytest.mark.injects(6)
def test_what_killed_processes_left_is_no_obstacle_and_is_cleared_away(
    finished_run: Path, tmp_path: Path
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".tmp-mine").write_text("mine")
    run.mkdir()
    (run / ".lock").write_text("")
    (run / ".tmp-config.yaml").write_text("run: ")  # killed as it began
    main(["train", *TINY_FLAGS, "--run", str(run)])
    assert_same_result(run, finished_run)

    (run / "checkpoints" / ".tmp-step-00000018.safetensors").write_bytes(b"half")
    (run / "checkpoints" / ".tmpA1b2C3").write_bytes(b"half")  # as safetensors calls its own
    (run / ".tmp-model.safetensors").symlink_to(elsewhere / ".tmp-mine")
    (run / "mine").symlink_to(elsewhere)
    main(["train", *TINY_FLAGS, "--run", str(run)])
    assert not list(run.glob("**/.tmp*"))
    assert (elsewhere / ".tmp-mine").read_text() == "mine"


# Another value of each setting than that of the tiny run.
ON_TRAJECTORY = {
    "data.name": "folder",
    "data.image_size": "14",
    "data.fit": "pad",
    "data.background": "#102030",
    "data.channels": "3",
    "data.value_range": "0,4095",
    "data.pages": "all",
    "data.reading": "suffix",
    "data.limit": "90",
    "data.holdout": "20",
    "data.validation": "20",
    "init_from": "elsewhere",
    "beta": "2",
    "kl_warmup": "0.5",
    "free_bits": "0.5",
    "num_samples": "2",
    "temperature": "0.5",
    "augment": "true",
    "model.likelihood": "gaussian",
    "model.latent_dim": "4",
    "model.conv_channels": "[2,2]",
    "model.hidden_dims": "[16,4]",
    "epochs": "3",
    "batch_size": "8",
    "learning_rate": "0.01",
    "warmup_steps": "4",
    "adam_beta2": "0.99",
    "weight_decay": "0.1",
    "input_noise": "0.1",
    "ema_decay": "0.9",
    "seed": "1",
    "mixed_precision": "bf16",
    "gradient_exchange": "bf16",
    "kl_gradient": "path",
}
OFF_TRAJECTORY = {
    "data.root": "elsewhere",
    "data.resident_limit": "0",
    "data.skip_unreadable": "true",
    "data.strict": "true",
    "sample_every": "2",
    "checkpoint_every": "4steps",
}
# A folder may be moved; trackers are optional packages.
OFF_TRAJECTORY_TOO = {"run", "tracker"}
# Given beside the settings of the tiny run these say nothing new, are refused at once, or change
# another one, too.
ON_TRAJECTORY_TOO = {
    "keep", "init_sha256", "data.image_column", "data.label_column", "importance_weighted",
    "compile", "augment_share", "augment_until",
    "model.architecture", "model.width", "model.to_pixels", "model.thumbnail",
    "model.block_norm", "model.block_bottleneck",
}  # fmt: skip


def test_every_setting_is_known_to_change_the_trajectory_or_not_to() -> None:
    off = {
        name
        for name, each in fields_by_flag(TrainConfig).items()
        if each.metadata.get("off_trajectory")
    }
    assert OFF_TRAJECTORY.keys() | OFF_TRAJECTORY_TOO == off
    every = flatten(to_dict(TrainConfig())).keys()
    assert ON_TRAJECTORY.keys() | ON_TRAJECTORY_TOO == every - off


@pytest.mark.parametrize("setting", ON_TRAJECTORY)
@pytest.mark.injects(8)
def test_a_setting_that_changes_the_trajectory_is_refused_by_name_on_resume(
    setting: str,
    finished_run: Path,
    tmp_path: Path,
    refused: Refused,
    request: pytest.FixtureRequest,
) -> None:
    if setting == "mixed_precision":  # which Accelerate keeps for a whole process
        AcceleratorState._reset_state()
        request.addfinalizer(AcceleratorState._reset_state)
    run = copy(finished_run, tmp_path / "run")
    flags = [f"--{setting}", ON_TRAJECTORY[setting]]
    if setting == "data.name":
        write_noise(tmp_path / "images", "a", "b", mode="L")
        flags += ["--data.root", str(tmp_path / "images")]
    before = snapshot(run)
    line = refused("train", *TINY_FLAGS, *flags, "--run", run)
    recorded = flatten(to_dict(RunFolder(run).require_config()))[setting]
    assert f"({setting}: {recorded} -> " in line
    assert "another --run folder" in line
    assert snapshot(run) == before


def cut_back(finished_run: Path, run: Path) -> Path:
    """A run after the first of its two epochs."""
    copy(finished_run, run)
    (run / "checkpoints" / "step-00000012.safetensors").unlink()
    return run


@pytest.mark.injects(8)
def test_settings_that_leave_the_trajectory_alone_may_change_in_the_middle_of_a_run(
    finished_run: Path, tmp_path: Path
) -> None:
    run = cut_back(finished_run, tmp_path / "run")
    flags = [
        f"--{name}" if value == "true" else f"--{name}={value}"
        for name, value in OFF_TRAJECTORY.items()
    ]
    main(["train", *TINY_FLAGS, *flags, "--run", str(run)])
    assert_same_result(run, finished_run)
    config = flatten(to_dict(RunFolder(run).require_config()))
    assert {name: str(config[name]).lower() for name in OFF_TRAJECTORY} == OFF_TRAJECTORY


@pytest.mark.parametrize("config_says", ["no", "auto"])
@pytest.mark.injects(8)
def test_a_precision_left_auto_is_that_of_the_run_whatever_the_hardware_offers(
    config_says: str, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of an earlier version recorded `auto`, and beside it what that had come to."""
    run = cut_back(finished_run, tmp_path / "run")
    config = replace(RunFolder(run).require_config(), mixed_precision=config_says)
    write_config(run / "config.yaml", config)
    monkeypatch.setattr(precision, "auto_precision", lambda: "bf16")
    main(["train", *TINY_FLAGS, "--mixed_precision", "auto", "--run", str(run)])
    assert_same_result(run, finished_run)
    assert RunFolder(run).require_config().mixed_precision == "no"
    main(["doctor", str(run)])


@pytest.mark.injects(8)
def test_a_checkpoint_of_another_precision_is_refused(
    finished_run: Path, tmp_path: Path, refused: Refused
) -> None:
    run = copy(finished_run, tmp_path / "run")
    newest = load_checkpoint(run / "checkpoints" / "step-00000012.safetensors")
    other = newest.metadata | {"mixed_precision": "fp16"}
    save_checkpoint(run / "checkpoints", newest._replace(metadata=other))
    before = snapshot(run)
    line = refused("train", *TINY_FLAGS, "--run", run)
    assert "its checkpoint was made with mixed_precision fp16, this start has no" in line
    assert snapshot(run) == before


@pytest.mark.injects(8)
def test_other_versions_or_hardware_are_named_in_one_line_on_resume_and_the_run_goes_on(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = cut_back(finished_run, tmp_path / "run")
    path = run / "environment.json"
    (facts,) = json.loads(path.read_text())
    now = facts["versions"]["torch"]
    facts |= {"threads": 64, "device": "NVIDIA H200", "execution_path": "cuda graph"}
    facts["versions"] |= {"torch": "2.0.0", "vaekit": "0.0.9"}
    path.write_text(json.dumps([facts]))
    train = ["train", *TINY_FLAGS, "--run", str(run)]
    main(train)
    (line,) = capsys.readouterr().err.splitlines()
    for words in (
        f"vaekit: note: not as at the last start of {run} (",
        f"versions.torch: '2.0.0' -> '{now}'",
        "versions.vaekit: '0.0.9' -> ",
        "threads: 64 -> 1",
        "device: 'NVIDIA H200' -> 'cpu'",
        "execution_path: 'cuda graph' -> 'eager'",
        "may differ by rounding from that of an uninterrupted run",
    ):
        assert words in line
    assert "numpy" not in line
    assert_same_result(run, finished_run)
    main(train)
    assert capsys.readouterr().err == "", "now it is as at the last start"


@pytest.mark.parametrize("starts", [None, "[]", "[{}]", '[{"versions": [1], "device": {}}]'])
@pytest.mark.injects(5)
def test_a_run_goes_on_whatever_was_recorded_of_its_last_start(
    starts: str | None, finished_run: Path, tmp_path: Path
) -> None:
    run = cut_back(finished_run, tmp_path / "run")
    (run / "environment.json").unlink()
    if starts is not None:
        (run / "environment.json").write_text(starts)
    main(["train", *TINY_FLAGS, "--run", str(run)])
    assert_same_result(run, finished_run)


def train_spoilt(config: TrainConfig, kept: Path) -> None:
    """What a rank does. The gradient of rank 1 is no number in the eighth step."""
    rank = os.environ["RANK"]
    agree_between_steps, stop_not_finite = loop.agree_between_steps, state.stop_not_finite

    def keep(training: Training, when: str) -> None:
        tensors = {name: tensor.clone() for name, tensor in training.tensors().items()}
        del tensors["losses"]
        save_file(tensors, kept / f"{when}-{rank}.safetensors")

    def spoil_the_next(training: Training, *arguments: Any) -> Any:
        if training.step == 7:
            keep(training, "before")
            if rank == "1":
                parameter = training.vae.get_parameter("dec.linear.bias")
                parameter.register_hook(lambda gradient: gradient * float("nan"))
        return agree_between_steps(training, *arguments)

    def keep_and_stop(training: Training, step: int) -> None:
        keep(training, "after")
        stop_not_finite(training, step)

    loop.agree_between_steps, state.stop_not_finite = spoil_the_next, keep_and_stop  # type: ignore[assignment]
    train(config)


@pytest.mark.faults
@pytest.mark.injects(10)
def test_a_gradient_that_is_no_number_on_one_rank_stops_both_without_an_update(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    run, whole = (
        tiny_config(tmp_path / name, checkpoint_every="5steps") for name in ("run", "whole")
    )
    ended = run_ranks(partial(train_spoilt, run, kept), 2, tmp_path)
    assert ended.exit_codes == [2, 2], ended.errors
    for errors in ended.errors:
        assert "not finite at step 8 (epoch 2)" in errors
        assert "step-00000005.safetensors is kept" in errors

    states = [load_file(path) for path in sorted(kept.iterdir())]
    assert len(states) == 4, "both ranks, before the step and at their end"
    for name, tensor in states[0].items():
        for other in states[1:]:
            np.testing.assert_array_equal(other[name], tensor, err_msg=name)
    assert newest_step(tmp_path / "run") == 5
    for config in (run, whole):
        ended = train_in_ranks(config, 2)
        assert ended.exit_codes == [0, 0], ended.errors
    assert_same_result(tmp_path / "run", tmp_path / "whole")
