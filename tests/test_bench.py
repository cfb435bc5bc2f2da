"""The benchmarks run, and one below its floor fails; what they measure is their own affair."""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT, run_command


@pytest.fixture
def interleaved(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("bench.interleaved")


@pytest.mark.slow
def test_every_benchmark_runs_once() -> None:
    command = [sys.executable, "-m", "pytest", "bench/", "-q", "--benchmark-disable"]
    result = run_command([*command, "-p", "no:cacheprovider"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "14 passed" in result.stdout


def test_two_ways_are_timed_in_turns(interleaved: ModuleType) -> None:
    turns = []
    contest = _contest(
        interleaved, ours=lambda: turns.append("A"), theirs=lambda: turns.append("B")
    )
    peer_times = interleaved.take_turns(_Benchmark(), contest, warm=False)
    assert "".join(turns) == "ABBAABBA"
    assert len(peer_times) == contest.rounds


def test_two_ways_that_give_different_results_are_not_timed(interleaved: ModuleType) -> None:
    def agree(ours: int, theirs: int) -> None:
        assert ours == theirs

    contest = _contest(interleaved, ours=lambda: 1, theirs=lambda: 2, agree=agree)
    with pytest.raises(AssertionError):
        interleaved.hold(None, contest, threads=1, floor=1)


@pytest.mark.parametrize(
    ("ratio", "median_ratio", "fails"),
    [(1.2, 1.1, False), (0.9, 1.1, False), (1.1, 0.9, False), (0.9, 0.8, True)],
)
def test_what_is_below_its_floor_is_named(
    interleaved: ModuleType, ratio: float, median_ratio: float, fails: bool
) -> None:
    outcome = interleaved.Outcome(
        work="encode, batch 1",
        peer="PyTorch eager",
        threads=2,
        rounds=4,
        best=1.0,
        peer_best=ratio,
        ratio=ratio,
        median_ratio=median_ratio,
        floor=1.0,
        note="",
    )
    fault = outcome.fault()
    if not fails:
        assert fault is None
        return
    for part in ("encode, batch 1", "PyTorch eager", "0.90", "at least 1", "ratios.toml"):
        assert part in fault


def test_a_contest_without_a_floor_is_refused(interleaved: ModuleType) -> None:
    with pytest.raises(LookupError, match="add it"):
        interleaved.read_floor("cpu", "encode, batch 1", "PyTorch eagre")


class _Benchmark:
    """pytest-benchmark's fixture, as far as turns go."""

    def pedantic(
        self,
        target: Callable[[], Any],
        setup: Callable[[], None],
        teardown: Callable[[], None],
        rounds: int,
    ) -> None:
        for _ in range(rounds):
            setup()
            target()
            teardown()


def _contest(interleaved: ModuleType, **changes: object) -> Any:
    settings = {"work": "work", "peer": "peer", "agree": lambda ours, theirs: None, "rounds": 4}
    return interleaved.Contest(**(settings | changes))
