"""The ranks of a launch as processes of the test, forked quickly, each with its own fate."""

import os
import signal
import socket
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fork_helpers import FORKS, speak_into

from vaekit.config import TrainConfig

PATIENCE = 4.0  # seconds that these ranks wait for one another
ROLL_CALL = 1.0


class Fate(NamedTuple):
    """A rank gets a signal before it does step number `step` of the run."""

    rank: int
    step: int
    signal: signal.Signals


class Ended(NamedTuple):
    exit_codes: list[int | None]
    outputs: list[str]  # what each rank said on standard output
    errors: list[str]  # and on standard error


def train_in_ranks(config: TrainConfig, num_ranks: int, fate: Fate | None = None) -> Ended:
    """Train until all ranks have ended, but for one that a fate has stopped; that is killed."""
    stopped = fate.rank if fate is not None and fate.signal == signal.SIGSTOP else None
    return run_ranks(
        partial(_train, config, fate), num_ranks, Path(str(config.run)).parent, stopped
    )


def run_ranks(
    work: Callable[[], None], num_ranks: int, logs: Path, stopped: int | None = None
) -> Ended:
    """Have `work`, a function of a module, done by ranks that meet as those of a launch do."""
    port = _free_port()
    outputs, errors = (
        [logs / f"rank-{rank}.{kind}" for rank in range(num_ranks)] for kind in ("out", "err")
    )
    ranks = [
        FORKS.Process(
            target=_be_rank, args=(work, rank, num_ranks, port, outputs[rank], errors[rank])
        )
        for rank in range(num_ranks)
    ]
    try:
        for process in ranks:
            process.start()
        for rank, process in enumerate(ranks):
            if rank != stopped:
                process.join(120)
        assert stopped is None or ranks[stopped].is_alive()
    finally:
        for process in ranks:
            process.kill()
            process.join()
    return Ended(
        [process.exitcode for process in ranks],
        [file.read_text() for file in outputs],
        [file.read_text() for file in errors],
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _be_rank(
    work: Callable[[], None], rank: int, num_ranks: int, port: int, output: Path, errors: Path
) -> None:
    speak_into(output, errors)
    if num_ranks > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(num_ranks),
            "LOCAL_WORLD_SIZE": str(num_ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    from vaekit.errors import user_errors_in_one_line
    from vaekit.training import ranks as processes

    processes.PATIENCE = timedelta(seconds=PATIENCE)
    processes.ROLL_CALL = timedelta(seconds=ROLL_CALL)
    with user_errors_in_one_line():
        work()


def _train(config: TrainConfig, fate: Fate | None) -> None:
    from vaekit.train import train
    from vaekit.training.step import Stepper

    advance = Stepper.advance

    def meet_fate(stepper: Stepper, step: int) -> None:
        if fate is not None and (fate.step, fate.rank) == (step, int(os.environ.get("RANK", "0"))):
            os.kill(os.getpid(), fate.signal)
        advance(stepper, step)

    Stepper.advance = meet_fate  # type: ignore[method-assign]
    train(config)
