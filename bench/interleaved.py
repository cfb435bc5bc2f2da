"""Two ways of doing the same work, timed in turns in one process, and the ratio between them.

A machine's speed drifts, so that only neighbours in time can be compared. Here they are.
"""

import statistics
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pytest_benchmark.fixture import BenchmarkFixture

FLOORS = Path(__file__).parent / "ratios.toml"

# Threads of PyTorch and of onnxruntime spin for some milliseconds after their work, in the way
# of whoever comes next.
REST = 0.02  # seconds before each turn
QUICK = 0.1  # seconds; a shorter call is timed right after another one, with its caches warm


class Contest(NamedTuple):
    """Two ways of doing `work`, to be run `rounds` times each."""

    work: str
    ours: Callable[[], Any]
    peer: str  # its name
    theirs: Callable[[], Any]
    agree: Callable[[Any, Any], None]  # raises where `ours` and `theirs` gave different results
    rounds: int
    note: str = ""


class Outcome(NamedTuple):
    """What a contest found. Times are in seconds; a ratio above 1 says that ours is faster."""

    work: str
    peer: str
    threads: int
    rounds: int
    best: float
    peer_best: float
    ratio: float  # of the best times
    median_ratio: float  # the median over the rounds of each round's ratio
    floor: float  # what the ratio must be at least
    note: str

    def fault(self) -> str | None:
        """What is wrong where both ratios are below the floor: noise seldom lowers both."""
        if max(self.ratio, self.median_ratio) >= self.floor:
            return None
        return (
            f"{self.work}, {self.threads} thread(s): {self.ratio:.2f} times as fast as "
            f"{self.peer} (median {self.median_ratio:.2f}), expected at least {self.floor:g} "
            f"({FLOORS.name}); ours {_milliseconds(self.best)} ms, "
            f"theirs {_milliseconds(self.peer_best)} ms"
        )


def hold(
    benchmark: BenchmarkFixture, contest: Contest, *, threads: int, floor: float
) -> Outcome | None:
    """See that both ways give the same, then time them; None where benchmarks are disabled.

    pytest-benchmark keeps the times of ours, and the rest in its `extra_info`.
    """
    seconds, our_result = _timed(contest.ours)
    peer_seconds, peer_result = _timed(contest.theirs)
    contest.agree(our_result, peer_result)
    benchmark.group = contest.work
    peer_times = take_turns(benchmark, contest, warm=max(seconds, peer_seconds) < QUICK)
    if benchmark.stats is None:
        return None
    times = benchmark.stats.stats.data
    outcome = Outcome(
        work=contest.work,
        peer=contest.peer,
        threads=threads,
        rounds=contest.rounds,
        best=min(times),
        peer_best=min(peer_times),
        ratio=min(peer_times) / min(times),
        median_ratio=statistics.median(b / a for a, b in zip(times, peer_times, strict=True)),
        floor=floor,
        note=contest.note,
    )
    benchmark.extra_info.update(outcome._asdict(), peer_times=peer_times)
    return outcome


def take_turns(benchmark: BenchmarkFixture, contest: Contest, *, warm: bool) -> list[float]:
    """Run both ways once a round, in the order A B, B A, A B ...; the seconds of each of theirs.

    `benchmark` times ours. A rest and, if `warm`, an untimed call come before each turn.
    """
    peer_times: list[float] = []
    is_peer_first = True

    def get_ready(work: Callable[[], Any]) -> None:
        time.sleep(REST)
        if warm:
            work()

    def take_peers_turn() -> None:
        get_ready(contest.theirs)
        peer_times.append(_timed(contest.theirs)[0])

    def before_ours() -> None:
        nonlocal is_peer_first
        is_peer_first = not is_peer_first
        if is_peer_first:
            take_peers_turn()
        get_ready(contest.ours)

    def after_ours() -> None:
        if not is_peer_first:
            take_peers_turn()

    benchmark.pedantic(contest.ours, setup=before_ours, teardown=after_ours, rounds=contest.rounds)
    return peer_times


def read_floor(device: str, work: str, peer: str) -> float:
    """The ratio demanded on a kind of device.

    Raises `LookupError` for a contest that the file doesn't have, lest a misspelt name in there
    go unnoticed.
    """
    floors = tomllib.loads(FLOORS.read_text(encoding="utf-8"))
    try:
        return float(floors[device][work][peer])
    except KeyError:
        raise LookupError(f'{FLOORS}: [{device}."{work}"] has no "{peer}"; add it') from None


def table(outcomes: list[Outcome]) -> list[str]:
    """The outcomes as lines of text for people."""
    width = max(len(_title(outcome)) for outcome in outcomes)
    lines = [
        f"{'work, against':<{width}}  threads  rounds     ours ms     peer ms  "
        f"ratio (best)  ratio (median)  at least"
    ]
    lines += [
        f"{_title(outcome):<{width}}  {outcome.threads:>7}  {outcome.rounds:>6}  "
        f"{_milliseconds(outcome.best):>10}  {_milliseconds(outcome.peer_best):>10}  "
        f"{outcome.ratio:>12.2f}  {outcome.median_ratio:>14.2f}  "
        f"{f'{outcome.floor:g}' if outcome.floor else '-':>8}  {outcome.note}".rstrip()
        for outcome in outcomes
    ]
    return lines


def _title(outcome: Outcome) -> str:
    return f"{outcome.work} | {outcome.peer}"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f}"


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result
