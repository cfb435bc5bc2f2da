"""Two ways of doing the same work, timed in turns in one process, and the ratio between them.

A machine's speed drifts, so that only neighbours in time can be compared. Here they are.
"""

import math
import statistics
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from pytest_benchmark.fixture import BenchmarkFixture

FLOORS = Path(__file__).parent / "ratios.toml"

# Threads of PyTorch and of onnxruntime spin for some milliseconds after their work, in the way
# of whoever comes next.
REST = 0.02  # seconds before each turn
CONFIDENCE = 0.95  # of a lower bound
HEADINGS = ("on", "ours ms", "theirs ms", "ratio", "median", "bound", "needed", "limit ms", "of it")
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
    device: str = "cpu"  # the kind of device, which has its own floors
    repeats: int = 1  # how many times a call does the work
    # Measures, beside each turn of ours, the seconds that the hardware needs for the work at least.
    limit: Callable[[], float] | None = None
    is_floor_for_bound: bool = False  # the lower bound of the ratio must reach the floor
    # What the peer's turns happen within, untimed: settings that it would find by itself.
    theirs_within: Callable[[], AbstractContextManager[None]] = nullcontext


class Outcome(NamedTuple):
    """What a contest found. Times are in seconds; a ratio above 1 says that ours is faster."""

    work: str
    peer: str
    device: str
    threads: int
    rounds: int
    best: float
    peer_best: float
    ratio: float  # of the best times
    median_ratio: float  # the median over the rounds of each round's ratio
    lower_ratio: float  # the lower bound of that median
    floor: float  # what the ratio must be at least
    is_floor_for_bound: bool
    limit: float  # 0 where it is not known
    note: str

    def fault(self) -> str | None:
        """What is wrong where both ratios are below the floor: noise seldom lowers both.

        Where the floor is for the bound, noise counts against ours.
        """
        likely = max(self.ratio, self.median_ratio)
        if (self.lower_ratio if self.is_floor_for_bound else likely) >= self.floor:
            return None
        return (
            f"{self.work}, {self.threads} thread(s): {self.ratio:.2f} times as fast as "
            f"{self.peer} (median {self.median_ratio:.2f}, not below {self.lower_ratio:.2f}), "
            f"expected at least {self.floor:g} ({FLOORS.name}); "
            f"ours {_milliseconds(self.best)} ms, theirs {_milliseconds(self.peer_best)} ms"
        )


def hold(
    benchmark: BenchmarkFixture, contest: Contest, *, threads: int, floor: float
) -> Outcome | None:
    """See that both ways give the same, then time them; None where benchmarks are disabled.

    pytest-benchmark keeps the times of ours, and the rest in its `extra_info`.
    """
    seconds, our_result = _timed(contest.ours)
    with contest.theirs_within():
        peer_seconds, peer_result = _timed(contest.theirs)
    contest.agree(our_result, peer_result)
    benchmark.group = contest.work
    peer_times, limits = take_turns(benchmark, contest, warm=max(seconds, peer_seconds) < QUICK)
    if benchmark.stats is None:
        return None
    times = benchmark.stats.stats.data
    ratios = [theirs / ours for ours, theirs in zip(times, peer_times, strict=True)]
    outcome = Outcome(
        work=contest.work,
        peer=contest.peer,
        device=contest.device,
        threads=threads,
        rounds=contest.rounds,
        best=min(times) / contest.repeats,
        peer_best=min(peer_times) / contest.repeats,
        ratio=min(peer_times) / min(times),
        median_ratio=statistics.median(ratios),
        lower_ratio=lower_bound(ratios),
        floor=floor,
        is_floor_for_bound=contest.is_floor_for_bound,
        limit=min(limits, default=0.0),
        note=contest.note,
    )
    benchmark.extra_info.update(outcome._asdict(), peer_times=peer_times)
    return outcome


def take_turns(
    benchmark: BenchmarkFixture, contest: Contest, *, warm: bool
) -> tuple[list[float], list[float]]:
    """Run both ways once a round, in the order A B, B A, A B ...; the seconds of each of theirs,
    and the hardware's limit as it was measured in each round.

    `benchmark` times ours. A rest and, if `warm`, an untimed call come before each turn.
    """
    peer_times: list[float] = []
    limits: list[float] = []
    is_peer_first = True

    def get_ready(work: Callable[[], Any]) -> None:
        time.sleep(REST)
        if warm:
            work()

    def take_peers_turn() -> None:
        with contest.theirs_within():
            get_ready(contest.theirs)
            peer_times.append(_timed(contest.theirs)[0])

    def before_ours() -> None:
        nonlocal is_peer_first
        is_peer_first = not is_peer_first
        if is_peer_first:
            take_peers_turn()
        if contest.limit is not None:
            limits.append(contest.limit())
        get_ready(contest.ours)

    def after_ours() -> None:
        if not is_peer_first:
            take_peers_turn()

    benchmark.pedantic(contest.ours, setup=before_ours, teardown=after_ours, rounds=contest.rounds)
    return peer_times, limits


def lower_bound(ratios: list[float]) -> float:
    """What the median is above with a confidence of 95%, however the ratios are distributed.

    The k-th smallest of n is above the true median where fewer than k are below it, as many as
    fall on one side of a fair coin. Of fewer than 5 the smallest is the bound, with less.
    """
    chance, rank = 0.0, 0
    while (chance := chance + math.comb(len(ratios), rank) / 2 ** len(ratios)) <= 1 - CONFIDENCE:
        rank += 1
    return sorted(ratios)[max(rank - 1, 0)]


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
    """The outcomes as lines of text for people, those of the same work under its name."""
    if not outcomes:
        return []
    width = max(len(outcome.peer) for outcome in outcomes)
    by_work: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        title = f"{outcome.work} ({outcome.note})" if outcome.note else outcome.work
        by_work.setdefault(title, []).append(outcome)
    lines = [_line(width, "against", HEADINGS)]
    for title, group in by_work.items():
        lines += [title, *(_line(width, outcome.peer, _cells(outcome)) for outcome in group)]
    return lines


def _line(width: int, peer: str, cells: Sequence[str]) -> str:
    place, *figures = cells
    return f"  {peer:<{width}}  {place:<6}" + "".join(f"{figure:>11}" for figure in figures)


def _cells(outcome: Outcome) -> tuple[str, ...]:
    reached = f"{outcome.limit / outcome.best:.0%}" if outcome.limit else "-"
    return (
        _place(outcome),
        _milliseconds(outcome.best),
        _milliseconds(outcome.peer_best),
        f"{outcome.ratio:.2f}",
        f"{outcome.median_ratio:.2f}",
        f"{outcome.lower_ratio:.2f}",
        f"{outcome.floor:g}" if outcome.floor else "-",
        _milliseconds(outcome.limit) if outcome.limit else "-",
        reached,
    )


def _place(outcome: Outcome) -> str:
    return f"{outcome.device} x{outcome.threads}" if outcome.device == "cpu" else outcome.device


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f}"


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result
