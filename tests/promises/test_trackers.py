"""A tracker that fails takes no work with it: it is other people's code, and their server."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType
from conftest import TINY_FLAGS, launch, tiny_config
from safetensors.torch import load_file

from vaekit import train as train_module
from vaekit.errors import UserError
from vaekit.runs.run import Run
from vaekit.train import train

SCRIPT = Path(train_module.__file__)
TRACKER = "tensorboard"

# A worker of its own whose tracker fails.
WORKER = f"""
import sys
sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:2]]}
from accelerate import tracking
from test_trackers import TRACKER, FaultyTracker
from vaekit.settings import parse
from vaekit.config import TrainConfig
from vaekit.errors import user_errors_in_one_line
from vaekit.train import train

tracking._available_trackers = [tracking.LoggerType.TENSORBOARD]
tracking.LOGGER_TYPE_TO_CLASS[TRACKER] = FaultyTracker
FaultyTracker.faults = (1,)
with user_errors_in_one_line():
    train(parse(TrainConfig))
"""


class ServerGoneError(Exception):
    """Of the tracker's own: nobody else can name its type."""


class FaultyTracker(GeneralTracker):
    """Raises in the calls named in `faults`; an epoch's `log` is named by its number."""

    name = TRACKER
    requires_logging_directory = False
    tracker = None
    faults: tuple[object, ...] = ()
    told: list[object] = []  # noqa: RUF012 - Accelerate makes the instance

    def __init__(self, run_name: str) -> None:
        super().__init__()
        self._call("init")

    def start(self) -> None:
        self._call("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._call("config")

    def log(self, values: dict[str, Any], step: int, **_: object) -> None:
        self._call(step)

    def finish(self) -> None:
        self._call("finish")

    def _call(self, name: object) -> None:
        self.told.append(name)
        if name in self.faults:
            raise ServerGoneError("503\nService Unavailable")


@pytest.fixture(autouse=True)
def faulty_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.TENSORBOARD])
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, TRACKER, FaultyTracker)
    monkeypatch.setattr(FaultyTracker, "told", [])


def assert_same_result(run: Path, whole: Path) -> None:
    """The same weights, bit for bit, and the same losses."""
    weights, expected = load_file(run / "model.safetensors"), load_file(whole / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name in expected:
        assert weights[name].equal(expected[name]), name
    assert losses_of(run) == losses_of(whole)


def losses_of(run: Path) -> list[dict[str, float]]:
    rows = Run(run).metrics
    return [{name: value for name, value in row.items() if "loss" in name} for row in rows]


def test_the_tracker_is_told_of_every_epoch_and_of_the_end(tmp_path: Path) -> None:
    train(tiny_config(tmp_path / "run", tracker=TRACKER))
    assert FaultyTracker.told == ["init", "start", "config", 0, 1, 2, "finish"]


@pytest.mark.parametrize("fault", ["init", "start", "config", 0, 1, 2, "finish"])
@pytest.mark.injects(19)
def test_wherever_a_tracker_raises_the_run_comes_to_the_same_result(
    fault: object, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FaultyTracker, "faults", (fault,))
    run = tmp_path / "run"
    with suppress(ServerGoneError, UserError):
        train(tiny_config(run, tracker=TRACKER))
    train(tiny_config(run))  # without it, as whoever resumes the run may choose
    assert_same_result(run, finished_run)
    assert not list(run.rglob(".tmp*"))


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.injects(19)
def test_an_epoch_that_a_tracker_refuses_is_in_a_checkpoint_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    monkeypatch.setattr(FaultyTracker, "faults", (epoch,))
    with pytest.raises(ServerGoneError):
        train(tiny_config(tmp_path / "run", tracker=TRACKER))
    assert (tmp_path / "run" / "checkpoints" / f"step-{6 * epoch:08d}.safetensors").exists()
    assert Run(tmp_path / "run").metrics[-1]["epoch"] == epoch


@pytest.mark.injects(19)
def test_a_run_resumed_with_the_tracker_that_failed_comes_to_the_same_result(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path / "run", tracker=TRACKER)
    monkeypatch.setattr(FaultyTracker, "faults", (1,))
    with suppress(ServerGoneError):
        train(config)
    monkeypatch.setattr(FaultyTracker, "faults", ())
    train(config)
    assert_same_result(tmp_path / "run", finished_run)


@pytest.mark.injects(19)
def test_a_tracker_that_fails_at_the_end_leaves_the_run_finished(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FaultyTracker, "faults", ("finish",))
    with suppress(ServerGoneError):
        train(tiny_config(tmp_path / "run", tracker=TRACKER))
    assert_same_result(tmp_path / "run", finished_run)
    assert (tmp_path / "run" / "checkpoints" / "step-00000012.safetensors").exists()


@pytest.mark.faults
@pytest.mark.injects(19)
def test_of_two_processes_neither_waits_for_ever(finished_run: Path, tmp_path: Path) -> None:
    run, worker = tmp_path / "run", tmp_path / "worker.py"
    worker.write_text(WORKER)
    launch(2, worker, *TINY_FLAGS, "--run", run, "--tracker", TRACKER)
    assert Run(run).metrics
    result = launch(2, SCRIPT, *TINY_FLAGS, "--run", run)
    assert result.returncode == 0, result.stderr
    weights, expected = (load_file(each / "model.safetensors") for each in (run, finished_run))
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], atol=1e-5, rtol=0)
