"""What experiment trackers are told of a run: other people's code, and their servers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from accelerate.utils import LoggerType
from PIL import Image

from vaekit.config import TrainConfig, flatten, to_dict
from vaekit.errors import UserError, say
from vaekit.runs.folder import RunFolder

PROJECT = "vaekit"


class Trackers:
    """The trackers of a run, in its main process, until the end of the block that it opens.

    One that fails is named once and told no more.
    """

    def __init__(self) -> None:
        self._working: list[GeneralTracker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tell(lambda tracker: tracker.finish())

    def start(self, config: TrainConfig, run: RunFolder) -> None:
        """Start those that the config names, and tell them every setting."""
        settings = {name: str(value) for name, value in flatten(to_dict(config)).items()}

        def begin(name: str) -> GeneralTracker:
            kind = LOGGER_TYPE_TO_CLASS[name]
            place = [str(run.path / "trackers")] if kind.requires_logging_directory else []
            tracker: GeneralTracker = kind(PROJECT, *place)
            tracker.start()
            tracker.store_init_configuration(settings)
            return tracker

        for name in trackers_named(config.tracker):
            if (tracker := _attempt(name, begin, name)) is not None:
                self._working.append(tracker)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Figures after so many steps of the run."""
        self._tell(lambda tracker: tracker.log(dict(values), step=step))

    def show(self, pictures: Mapping[str, Path], step: int) -> None:
        """PNG files, to those trackers that take pictures."""
        self._tell(lambda tracker: _show(tracker, pictures, step))

    def _tell(self, tell: Callable[[GeneralTracker], object]) -> None:
        self._working = [
            tracker
            for tracker in self._working
            if _attempt(tracker.name, lambda of: (tell(of),), tracker) is not None
        ]


def trackers_named(names: str | None) -> list[str]:
    """Those of a list with commas, each once; all that are installed for `all`."""
    given = [] if names is None else [name.strip() for name in names.split(",")]
    if "all" in given:
        given = [str(each) for each in get_available_trackers()]
    return [*dict.fromkeys(given)]


def require_trackers(names: str | None) -> None:
    """Raise `UserError` for trackers that Accelerate doesn't know, or that are not installed."""
    for name in trackers_named(names):
        if name not in LoggerType.list():
            raise UserError(
                f"--tracker {name}: expected one that Accelerate knows, or several with commas, of "
                f"{', '.join(LoggerType.list())}"
            )
        if name not in [str(each) for each in get_available_trackers()]:
            raise UserError(
                f"--tracker {name}: its package is not installed; `pip install {name}`, or leave "
                f"it out"
            )


def _attempt(name: str, call: Callable[[Any], Any], argument: Any) -> Any:
    """What `call` returns; None, and a line, where the tracker of that name raises anything."""
    try:
        return call(argument)
    except Exception as error:  # noqa: BLE001 - nobody else can name the types of their errors
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        say(f"warning: the tracker {name} failed ({why}); the run goes on without it")
        return None


def _show(tracker: GeneralTracker, pictures: Mapping[str, Path], step: int) -> None:
    match tracker.name:
        case "tensorboard":
            for title, path in pictures.items():
                with Image.open(path) as picture:
                    pixels = np.asarray(picture.convert("RGB"))[None]
                tracker.log_images({title: pixels}, step=step, dataformats="NHWC")
        case "wandb" | "swanlab":
            for title, path in pictures.items():
                with Image.open(path) as picture:
                    tracker.log_images({title: [picture.convert("RGB")]}, step=step)
        case "trackio":
            import trackio

            tracker.log(
                {title: trackio.Image(str(path)) for title, path in pictures.items()}, step=step
            )
        case "mlflow":
            for title, path in pictures.items():
                tracker.log_artifact(str(path), title)
