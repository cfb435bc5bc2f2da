"""What the benchmarks share: options, contests against peers, and the table at the end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.interleaved import Contest, Outcome, hold, read_floor, table

OUTCOMES = pytest.StashKey[list[Outcome]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--run",
        type=Path,
        metavar="RUN",
        help="deploy the weights and the SVM of this run, on its test images (default: made-up "
        "ones of MNIST's size)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[OUTCOMES] = []


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    outcomes = config.stash[OUTCOMES]
    if outcomes:
        terminalreporter.section("against peers: a ratio above 1 says that vaekit is faster")
        for line in table(outcomes):
            terminalreporter.write_line(line)


@pytest.fixture(params=sorted({1, torch.get_num_threads()}), ids="threads={}".format)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many threads PyTorch has and onnxruntime is to have: one, and as many as there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def compete(
    benchmark: BenchmarkFixture, pytestconfig: pytest.Config, threads: int
) -> Callable[[Contest], None]:
    """Hold a contest and enter it in the table; fails where the ratio is too low."""

    def run(contest: Contest) -> None:
        floor = read_floor(contest.device, contest.work, contest.peer)
        outcome = hold(benchmark, contest, threads=threads, floor=floor)
        if outcome is None:
            return
        pytestconfig.stash[OUTCOMES].append(outcome)
        fault = outcome.fault()
        if fault is not None:
            pytest.fail(fault, pytrace=False)

    return run
