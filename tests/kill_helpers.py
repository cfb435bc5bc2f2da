"""Runs in processes that are meant to die, forked quickly from one that is ready."""

import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from fork_helpers import FORKS
from safetensors.torch import load_file

from vaekit.config import TrainConfig
from vaekit.runs.checkpoints import load_newest_checkpoint
from vaekit.runs.run import Run

FILE_EVENTS = {"open", "os.rename", "os.remove", "os.chmod"}


def start(config: TrainConfig, die_at: int | None = None) -> BaseProcess:
    """A process that trains; `die_at`: it kills itself before so many file operations of its
    second checkpoint."""
    process = FORKS.Process(target=_train, args=(config, die_at))
    process.start()
    return process


def finish(config: TrainConfig) -> None:
    """Train to the end in a process."""
    process = start(config)
    process.join(120)
    assert process.exitcode == 0


def _train(config: TrainConfig, die_at: int | None) -> None:
    from vaekit import train as module

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    if die_at is not None:
        module.save_checkpoint = _DyingSave(module.save_checkpoint, die_at)  # type: ignore[attr-defined, assignment]
    module.train(config)


class _DyingSave:
    def __init__(self, save: object, die_at: int) -> None:
        self._save, self._die_at = save, die_at
        self._num_saves = self._num_events = 0
        sys.addaudithook(self._on_event)

    def __call__(self, *arguments: object) -> None:
        self._num_saves += 1
        self._save(*arguments)  # type: ignore[operator]
        if self._num_saves == 2:
            os._exit(77)  # fewer operations than that

    def _on_event(self, event: str, _arguments: object) -> None:
        if self._num_saves == 2 and event in FILE_EVENTS:
            if self._num_events == self._die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self._num_events += 1


def start_extracting(run: Path, die_at: int) -> BaseProcess:
    """A process that encodes a run's images by eights and kills itself before so many operations
    on files of its latents."""
    process = FORKS.Process(target=_extract, args=(run, die_at))
    process.start()
    return process


def _extract(run: Path, die_at: int) -> None:
    from vaekit.runs import latent_parts
    from vaekit.stages import latents as module

    module.batch_size_on = lambda _: 8
    latent_parts.MOST_BATCHES = 3
    num_events = 0

    def on_event(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal num_events
        if event in FILE_EVENTS and f"{run.name}/latents/" in str(arguments[0]):
            if num_events == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            num_events += 1

    sys.addaudithook(on_event)
    module.extract_latents(Run(run))


def newest_step(run: Path) -> int:
    """That of the newest checkpoint, which must be whole; 0 where there is none."""
    checkpoint = load_newest_checkpoint(run / "checkpoints")
    return 0 if checkpoint is None else checkpoint.step


def assert_same_result(run: Path, whole: Path) -> None:
    """Weights, average, moments and losses are equal, bit for bit."""
    for path in (run, whole):
        assert not list(path.rglob(".tmp*")), path
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    one, other = (max((path / "checkpoints").iterdir()) for path in (run, whole))
    assert one.name == other.name
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.equal(second[name]), name
    rows, other_rows = (Run(path).metrics for path in (run, whole))
    for row in (*rows, *other_rows):
        del row["seconds"], row["images_per_second"]
    assert rows == other_rows
