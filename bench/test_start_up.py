"""How long a user waits for a first word."""

import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS = 10


def test_help(benchmark: BenchmarkFixture) -> None:
    pytest.importorskip("jsonargparse", reason="jsonargparse is not installed")
    command = [sys.executable, "-m", "vaekit", "--help"]
    benchmark.group = "start-up: vaekit --help"
    benchmark.pedantic(
        lambda: subprocess.run(command, check=True, capture_output=True), rounds=ROUNDS
    )
