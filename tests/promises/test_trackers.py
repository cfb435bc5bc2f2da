"""A tracker that fails takes no work with it: it is other people's code, and their server."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType
from conftest import tiny_config
from kill_helpers import assert_same_result
from rank_helpers import run_ranks
from safetensors.torch import load_file

from vaekit.config import TrainConfig
from vaekit.errors import UserError
from vaekit.train import train

TRACKER = "tensorboard"


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
        ("carrier-pigeon", r"carrier-pigeon: expected one that Accelerate knows.*tensorboard"),
        (f"{TRACKER},wandb", r"--tracker wandb: its package is not installed; `pip install wandb`"),
    ],
)
def test_a_tracker_that_there_is_not_is_refused_before_anything_is_written(
    names: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        train(tiny_config(tmp_path / "run", tracker=names))
    assert not (tmp_path / "run").exists()


def train_with_a_faulty_tracker(config: TrainConfig) -> None:
    """What a rank does, in a process of its own."""
    tracking._available_trackers = [LoggerType.TENSORBOARD]
    tracking.LOGGER_TYPE_TO_CLASS[TRACKER] = FaultyTracker
    FaultyTracker.faults = (6,)
    train(config)


@pytest.mark.faults
@pytest.mark.injects(19)
def test_two_processes_go_on_without_it(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = tiny_config(run, tracker=TRACKER)
    ended = run_ranks(partial(train_with_a_faulty_tracker, config), 2, tmp_path)
    assert ended.exit_codes == [0, 0], ended.errors
    assert "".join(ended.errors).count("the tracker tensorboard failed") == 1
    weights, expected = (load_file(each / "model.safetensors") for each in (run, finished_run))
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], atol=1e-5, rtol=0)
