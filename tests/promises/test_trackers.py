"""A tracker that fails takes no work with it: it is other people's code, and their server."""

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
FaultyTracker.faults = (6,)
with user_errors_in_one_line():
    train(parse(TrainConfig))
"""


class ServerGoneError(Exception):
    """Of the tracker's own: nobody else can name its type."""


class FaultyTracker(GeneralTracker):
    """Raises in the calls named in `faults`; a `log` is named by its step."""

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

    def log_images(self, values: dict[str, Any], step: int, **_: object) -> None:
        assert [*values] in (["samples"], ["reconstructions"])
        if "samples" in values:
            self._call("pictures")

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


def test_the_tracker_is_told_of_every_epoch_its_pictures_and_the_end(tmp_path: Path) -> None:
    train(tiny_config(tmp_path / "run", tracker=TRACKER))
    assert FaultyTracker.told == [
        *("init", "start", "config"),
        *(0, "pictures", 6, 6, "pictures", 12, 12, "pictures", 12, "finish"),
    ]


@pytest.mark.parametrize("fault", ["init", "start", "config", 0, 6, 12, "pictures", "finish"])
@pytest.mark.injects(19)
def test_a_tracker_that_raises_is_named_once_and_the_run_goes_on(
    fault: object,
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(FaultyTracker, "faults", (fault,))
    train(tiny_config(tmp_path / "run", tracker=TRACKER))
    assert_same_result(tmp_path / "run", finished_run)
    said = [line for line in capsys.readouterr().err.splitlines() if "tracker" in line]
    assert said == [
        "vaekit: warning: the tracker tensorboard failed (ServerGoneError: 503 Service "
        "Unavailable); the run goes on without it"
    ]
    assert FaultyTracker.told.count(fault) == 1
    assert FaultyTracker.told[-1] == fault


@pytest.mark.injects(19)
def test_of_several_trackers_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sound(FaultyTracker):
        name, faults = "mlflow", ()
        told: list[object] = []  # noqa: RUF012

        def log_artifact(self, path: str, title: str) -> None:
            assert Path(path).is_file()
            self._call(title)

    kinds = [LoggerType.TENSORBOARD, LoggerType.MLFLOW]
    monkeypatch.setattr(tracking, "_available_trackers", kinds)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "mlflow", Sound)
    monkeypatch.setattr(FaultyTracker, "faults", ("start",))
    train(tiny_config(tmp_path / "run", tracker=f"{TRACKER}, mlflow"))
    assert FaultyTracker.told == ["init", "start"]
    shown = ["samples", "reconstructions"]
    epochs = [0, *shown, 6, 6, *shown, 12, 12, *shown]
    assert Sound.told == ["init", "start", "config", *epochs, 12, "finish"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("carrier-pigeon", r"--tracker carrier-pigeon: expected one .*tensorboard"),
        (f"{TRACKER},wandb", r"--tracker wandb: its package is not installed; `pip install wandb`"),
    ],
)
def test_a_tracker_that_there_is_not_is_refused_before_anything_is_written(
    names: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        train(tiny_config(tmp_path / "run", tracker=names))
    assert not (tmp_path / "run").exists()


@pytest.mark.faults
@pytest.mark.injects(19)
def test_two_processes_go_on_without_it(finished_run: Path, tmp_path: Path) -> None:
    run, worker = tmp_path / "run", tmp_path / "worker.py"
    worker.write_text(WORKER)
    result = launch(2, worker, *TINY_FLAGS, "--run", run, "--tracker", TRACKER)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("the tracker tensorboard failed") == 1
    weights, expected = (load_file(each / "model.safetensors") for each in (run, finished_run))
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], atol=1e-5, rtol=0)
