"""How the time of some work grows with its size, measured in turns in one process."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pytest_benchmark.fixture import BenchmarkFixture


class Growth(NamedTuple):
    """Work at several sizes, from the smallest on; each call gives the seconds of its work."""

    work: str
    unit: str  # of the sizes
    calls: Mapping[int, Callable[[], float]]
    rounds: int
    note: str = ""


class Costs(NamedTuple):
    growth: Growth
    seconds: dict[int, float]  # the best of each size


def measure(benchmark: BenchmarkFixture, growth: Growth) -> Costs | None:
    """Every size once a round, up and down in turns; None where benchmarks are disabled."""
    times: dict[int, list[float]] = {size: [] for size in growth.calls}

    def take_round() -> None:
        is_upward = len(times[next(iter(times))]) % 2 == 0
        for size in times if is_upward else reversed(times):
            times[size].append(growth.calls[size]())

    benchmark.group = f"growth: {growth.work}, {growth.unit}"
    benchmark.pedantic(take_round, rounds=growth.rounds)
    if benchmark.stats is None:
        return None
    costs = Costs(growth, {size: min(each) for size, each in times.items()})
    benchmark.extra_info.update(seconds={str(size): each for size, each in times.items()})
    return costs


def seconds_of(work: Callable[[], Any]) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return timed


def markdown(costs: Costs) -> list[str]:
    """A table of the sizes and their times, each also in units of the first row."""
    (first, least), *_ = costs.seconds.items()
    title = f"{costs.growth.work}: {costs.growth.note}" if costs.growth.note else costs.growth.work
    lines = [
        "",
        f"{title[0].upper()}{title[1:]}",
        "",
        f"| {costs.growth.unit} | ms | size | time |",
        "|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {size:,} | {1e3 * seconds:,.2f} | {size / first:.4g}x | {seconds / least:.2f}x |"
        for size, seconds in costs.seconds.items()
    ]
    return lines
