"""An hour of training, stopped and resumed all the while: memory and open files must stay flat.

`make soak`, or `python tests/soak.py MINUTES FOLDER`. Two runs of one config go side by side. One
trains on in a single process. The other is stopped by SIGTERM, SIGINT and SIGKILL in turn and
resumed each time. In the end both must have recorded the same losses, to the last bit.
"""

import argparse
import random
import shlex
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaekit.runs.checkpoints import load_newest_checkpoint
from vaekit.runs.folder import RunFolder
from vaekit.runs.run import Run

FLAGS = shlex.split(
    "--data.name digits --model.latent_dim 8 --model.conv_channels [8,16] "
    "--model.hidden_dims [64,32] --batch_size 4 --epochs 1000000 --input_noise 0.1 "
    "--sample_every 10 --checkpoint_every 100steps --mixed_precision no"
)
SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}
LONGEST_LIFE = 20.0  # seconds of training between two signals
SECONDS_A_SAMPLE = 1.0
ALLOWED_GROWTH = 0.02  # of the median, over the second half; a row an epoch is kept in memory
NUM_POINTS = 1000  # that a slope is taken of


class Sample(NamedTuple):
    """What a process holds; `start` is that of the run."""

    start: int
    seconds: float
    megabytes: float
    num_open_files: int


class Series(NamedTuple):
    """A figure over time, which must not grow."""

    name: str
    seconds: list[float]
    values: list[float]


class Growth(NamedTuple):
    """Over the second half, by the median of the slopes between all points (Theil and Sen)."""

    median: float
    growth: float
    allowed: float


class Trainer:
    """`vaekit train` in a process, and what it says."""

    def __init__(self, run: Path, log: Path) -> None:
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vaekit", "train", *FLAGS, "--run", str(run)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def is_training(self) -> bool:
        if self._process.poll() is not None:
            raise SystemExit(f"soak: a trainer ended by itself:\n{self._log.read_text()}")
        return "steps an epoch" in self._log.read_text()

    def sample(self, start: int, seconds: float) -> Sample:
        process = Path(f"/proc/{self._process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        kilobytes = int(status["VmRSS"].split()[0])
        return Sample(start, seconds, kilobytes / 1e3, len(list((process / "fd").iterdir())))

    def stop(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        code = self._process.wait(timeout=120)
        if code != SIGNALS[number]:
            raise SystemExit(f"soak: {number.name} gave {code}:\n{self._log.read_text()}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def soak(minutes: float, folder: Path) -> None:
    """Train in `folder` for so long; `SystemExit` with a message where something grows or tears."""
    steady_run, stopped_run = RunFolder(folder / "steady"), RunFolder(folder / "stopped")
    began = time.monotonic()
    steady_samples, stopped_samples, folder_samples = [], [], []
    waits, signals = random.Random(0), cycle(SIGNALS)
    num_starts, stop_at, step = 0, None, 0
    steady = Trainer(steady_run.path, folder / "steady.log")
    stopped = None
    try:
        while (now := time.monotonic() - began) < 60 * minutes:
            if steady.is_training():
                steady_samples.append(steady.sample(1, now))
            if stopped is None:
                num_starts += 1
                stopped = Trainer(stopped_run.path, folder / "stopped.log")
                stop_at = None
            elif stop_at is None and stopped.is_training():
                stop_at = now + waits.uniform(0, LONGEST_LIFE)
            elif stop_at is not None and now > stop_at:
                stopped_samples.append(stopped.sample(num_starts, now))
                stopped.stop(next(signals))
                stopped = None
                step = require_progress(stopped_run, step)
                folder_samples.append((now, *folder_size(stopped_run)))
            time.sleep(SECONDS_A_SAMPLE)
    finally:
        for trainer in (steady, stopped):
            if trainer is not None:
                trainer.kill()
    num_epochs = require_same_losses(steady_run, stopped_run)
    print(
        f"{minutes:g} minutes, {num_starts} starts of the stopped run; {num_epochs} epochs of both "
        f"runs with the same losses\n"
    )
    report(
        [
            *series("steady: ", steady_samples),
            *series("stopped: ", stopped_samples),
            Series("folder: files", *columns(folder_samples, 0, 1)),
            Series("folder: MB", *columns(folder_samples, 0, 2)),
        ]
    )


def require_progress(run: RunFolder, step: int) -> int:
    """The step of the newest checkpoint, which must be whole and none before `step`."""
    checkpoint = load_newest_checkpoint(run.checkpoints)
    found = 0 if checkpoint is None else checkpoint.step
    if found < step:
        raise SystemExit(f"soak: {run.path} fell from step {step} back to {found}")
    return found


def require_same_losses(one: RunFolder, other: RunFolder) -> int:
    """How many epochs both runs have recorded, which must be alike."""
    rows, other_rows = Run(one.path).metrics, Run(other.path).metrics
    common = min(len(rows), len(other_rows))
    for row, other_row in zip(rows[:common], other_rows[:common], strict=True):
        for name in ("step", "train_loss", "test_loss"):
            if row[name] != other_row[name]:
                raise SystemExit(f"soak: {name} differs at epoch {row['epoch']}")
    return common


def folder_size(run: RunFolder) -> tuple[int, float]:
    """Files and megabytes, without the pictures and the table, which are meant to grow."""
    paths = [run.model, *(path for path in run.path.rglob("*") if path.name.startswith(".tmp"))]
    paths += run.checkpoints.iterdir() if run.checkpoints.exists() else []
    existing = {path for path in paths if path.exists()}
    return len(existing), sum(path.stat().st_size for path in existing) / 1e6


def series(prefix: str, samples: list[Sample]) -> list[Series]:
    return [
        Series(f"{prefix}MB resident", *columns(samples, 1, 2)),
        Series(f"{prefix}open files", *columns(samples, 1, 3)),
    ]


def columns(rows: list[tuple[float, ...]], *indices: int) -> list[list[float]]:
    return [[row[index] for row in rows] for index in indices]


def growth_of(one: Series) -> Growth:
    seconds, values = np.array(one.seconds), np.array(one.values)
    half = seconds >= (seconds[0] + seconds[-1]) / 2
    seconds, values = seconds[half], values[half]
    some = np.linspace(0, len(seconds) - 1, min(len(seconds), NUM_POINTS)).astype(int)
    first, second = np.triu_indices(len(some), k=1)
    rises = values[some][second] - values[some][first]
    slope = np.median(rises / (seconds[some][second] - seconds[some][first]))
    median = float(np.median(values))
    return Growth(median, float(slope * (seconds[-1] - seconds[0])), ALLOWED_GROWTH * median)


def report(every: list[Series]) -> None:
    """Print a table; `SystemExit` where a figure grows."""
    print(f"{'second half':<22}{'median':>10}{'growth':>10}{'allowed':>10}")
    grown = []
    for one in every:
        if len(one.values) < 4:
            raise SystemExit(f"soak: too short for a figure on {one.name}; give more minutes")
        found = growth_of(one)
        print(f"{one.name:<22}{found.median:>10.1f}{found.growth:>10.2f}{found.allowed:>10.2f}")
        if found.growth > found.allowed:
            grown.append(one.name)
    if grown:
        raise SystemExit(f"soak: growing: {', '.join(grown)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=60.0)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/soak"))
    arguments = parser.parse_args()
    if arguments.folder.exists():
        raise SystemExit(f"{arguments.folder}: exists already; remove it, or name another folder")
    arguments.folder.mkdir(parents=True)
    soak(arguments.minutes, arguments.folder)
