"""What the benchmarks share: options, ways to measure, and the tables at the end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.defaults import set_for_training
from bench.growth import Costs, Growth, markdown
from bench.growth import measure as measure_growth
from bench.interleaved import Contest, Outcome, hold, read_floor, table
from bench.memory import Appetite, measure, memory_table
from bench.stages import STAGES
from vaekit.training.ranks import start_ranks


class Results(NamedTuple):
    outcomes: list[Outcome]
    appetites: list[Appetite]
    costs: list[Costs]


RESULTS = pytest.StashKey[Results]()

Compete = Callable[[Contest], None]  # the fixture

all_threads = pytest.mark.parametrize(
    "threads", [torch.get_num_threads()], indirect=True, ids="threads={}".format
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--run",
        type=Path,
        metavar="RUN",
        help="deploy the weights and the SVM of this run, on its test images (default: made-up "
        "ones of MNIST's size)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = Results([], [], [])


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    outcomes, appetites, costs = config.stash[RESULTS]
    tables = {
        "against peers: a ratio above 1 says that vaekit is faster": table(outcomes),
        "peak memory of a process, MB": memory_table(appetites),
        "growth of cost": [line for each in costs for line in markdown(each)],
    }
    for title, lines in tables.items():
        if lines:
            terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def is_quick(pytestconfig: pytest.Config) -> bool:
    """Nothing is timed, so that all may be tiny."""
    return bool(pytestconfig.getoption("benchmark_disable"))


@pytest.fixture
def as_for_training() -> Iterator[None]:
    """The process has the settings of `vaekit train`; no other benchmark hangs on them."""
    with set_for_training(start_ranks().device):
        yield


@pytest.fixture(params=sorted({1, torch.get_num_threads()}), ids="threads={}".format)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many threads PyTorch has and onnxruntime is to have: one, and as many as there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def compete(benchmark: BenchmarkFixture, pytestconfig: pytest.Config, threads: int) -> Compete:
    """Hold a contest and enter it in the table; fails where the ratio is too low."""

    def run(contest: Contest) -> None:
        floor = read_floor(contest.device, contest.work, contest.peer)
        outcome = hold(benchmark, contest, threads=threads, floor=floor)
        if outcome is None:
            return
        pytestconfig.stash[RESULTS].outcomes.append(outcome)
        _require(outcome.fault())

    return run


@pytest.fixture
def grow(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> Callable[[Growth], None]:
    """Measure how a cost grows and enter it in the tables."""

    def run(growth: Growth) -> None:
        costs = measure_growth(benchmark, growth)
        if costs is not None:
            pytestconfig.stash[RESULTS].costs.append(costs)

    return run


@pytest.fixture
def measure_memory(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> Callable[..., None]:
    """Measure a stage and its peer, and enter them in the table; fails above the limit."""

    def run(title: str, folder: Path, ours: str, peer: str = "", theirs: str = "") -> None:
        # With CUDA's libraries in it, a process's memory tells little of its work.
        is_telling = peer and not torch.cuda.is_available()
        floor = read_floor("memory", title, peer) if is_telling else 0.0
        benchmark.group = f"memory: {title}"
        if benchmark.disabled:  # a process of its own takes seconds to start
            benchmark(STAGES[ours](folder))
            if peer:
                STAGES[theirs](folder)()
            return
        our_peak = benchmark.pedantic(measure, args=(ours, folder))
        their_peak = measure(theirs, folder) if peer else None
        appetite = Appetite(title, our_peak, peer, their_peak, floor)
        benchmark.extra_info.update(appetite._asdict())
        pytestconfig.stash[RESULTS].appetites.append(appetite)
        _require(appetite.fault())

    return run


def _require(fault: str | None) -> None:
    if fault is not None:
        pytest.fail(fault, pytrace=False)
