"""The benchmarks run; what they measure is their own affair."""

import sys

import pytest
from conftest import run_command


@pytest.mark.slow
def test_every_benchmark_runs_once() -> None:
    command = [sys.executable, "-m", "pytest", "bench/", "-q", "--benchmark-disable"]
    result = run_command([*command, "-p", "no:cacheprovider"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout
