"""The benchmarks run, and one below its floor fails; what they measure is their own affair."""

import importlib
import re
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, run_command

from vaekit.model import VAE

NUM_NEEDED = 19  # benchmarks, with one thread
NUM_OPTIONAL = 4  # of pythae, scikit-learn-intelex and cuML


@pytest.fixture
def interleaved(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("bench.interleaved")


@pytest.mark.slow
def test_every_benchmark_runs_once() -> None:
    command = [sys.executable, "-m", "pytest", "bench/", "-q", "--benchmark-disable"]
    result = run_command([*command, "-p", "no:cacheprovider"], timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    counts = dict(reversed(each) for each in re.findall(r"(\d+) (passed|skipped)", result.stdout))
    passed, skipped = int(counts["passed"]), int(counts.get("skipped", 0))
    assert passed >= NUM_NEEDED
    assert passed + skipped == NUM_NEEDED + NUM_OPTIONAL
    for reason in re.findall("^SKIPPED .*", result.stdout, re.MULTILINE):
        assert re.search("pythae|scikit-learn-intelex|cuML", reason)


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
    fault = _outcome(interleaved, ratio=ratio, median_ratio=median_ratio).fault()
    if not fails:
        assert fault is None
        return
    for part in ("encode, batch 1", "PyTorch eager", "0.90", "at least 1", "ratios.toml"):
        assert part in fault


def test_a_floor_for_the_bound_is_held_against_the_bound(interleaved: ModuleType) -> None:
    def fault(lower_ratio: float) -> str | None:
        return _outcome(interleaved, lower_ratio=lower_ratio, is_floor_for_bound=True).fault()

    assert fault(1.0) is None
    assert "not below 0.99" in fault(0.99)


@pytest.mark.parametrize("num_rounds", [5, 8, 11, 30])
def test_the_bound_is_below_the_true_median_nineteen_times_in_twenty(
    interleaved: ModuleType, num_rounds: int
) -> None:
    draws = np.random.default_rng(0).lognormal(size=(4000, num_rounds))  # of median 1
    num_below = sum(interleaved.lower_bound(list(draw)) <= 1 for draw in draws)
    assert 0.945 <= num_below / len(draws) <= 0.99


def test_a_call_that_does_the_work_repeatedly_is_timed_by_the_piece(
    interleaved: ModuleType,
) -> None:
    contest = _contest(interleaved, ours=lambda: None, theirs=lambda: None, repeats=10)
    outcome = interleaved.hold(_Benchmark(seconds=5.0), contest, threads=1, floor=0)
    assert outcome.best == 0.5


def test_the_table_tells_how_near_the_hardware_is(interleaved: ModuleType) -> None:
    known, unknown = interleaved.table(
        [_outcome(interleaved, best=0.2, limit=0.1), _outcome(interleaved)]
    )[1:]
    assert known.split()[-2:] == ["100.00", "50%"]
    assert unknown.split()[-2:] == ["-", "-"]


@pytest.mark.slow
def test_a_step_has_the_operations_that_its_layers_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    batch_size, linears = 2, 10 * 256 + 256 * 512 + 512 * 18432  # of the decoder
    encoder = 26**2 * 9 * 16 + 24**2 * 9 * 16 * 32 + linears + 10 * 256  # mean and log-variance
    decoder = linears + 24**2 * 9 * 32 * 16 + 26**2 * 9 * 16
    forward = 2 * batch_size * (encoder + decoder)  # a multiplication and an addition each
    # Backward there are two products for each one, but nobody needs the images' gradient.
    images_gradient = 2 * batch_size * 26**2 * 9 * 16
    hardware = importlib.import_module("bench.hardware")
    with torch.device("meta"):
        vae = VAE()
    assert hardware.step_flops(vae, batch_size) == 3 * forward - images_gradient


def test_a_contest_without_a_floor_is_refused(interleaved: ModuleType) -> None:
    with pytest.raises(LookupError, match="add it"):
        interleaved.read_floor("cpu", "encode, batch 1", "PyTorch eagre")


class _Benchmark:
    """pytest-benchmark's fixture, as far as turns go; every call of ours takes `seconds`."""

    group: str

    def __init__(self, seconds: float = 1.0) -> None:
        self.extra_info: dict[str, Any] = {}
        self._seconds = seconds

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
        data = [self._seconds] * rounds
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=data))


def _contest(interleaved: ModuleType, **changes: object) -> Any:
    settings = {"work": "work", "peer": "peer", "agree": lambda ours, theirs: None, "rounds": 4}
    return interleaved.Contest(**(settings | changes))


def _outcome(interleaved: ModuleType, **changes: object) -> Any:
    settings = {
        "work": "encode, batch 1",
        "peer": "PyTorch eager",
        "device": "cpu",
        "threads": 2,
        "rounds": 4,
        "best": 1.0,
        "peer_best": 1.2,
        "ratio": 1.2,
        "median_ratio": 1.2,
        "lower_ratio": 1.1,
        "floor": 1.0,
        "is_floor_for_bound": False,
        "limit": 0.0,
        "note": "",
    }
    return interleaved.Outcome(**(settings | changes))
