"""Answers of a long benchmark, each a line of JSON on the disk as soon as it is known.

Loaded by pytest (`-p bench.answers`), it writes one for every test, with what a benchmark found.
"""

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

FILE = "VAEKIT_ANSWERS"  # the environment variable that names the file; without it none is written
PART = "VAEKIT_PART"  # and the one that says which part of the benchmark asks
LONGEST_TEXT = 3000  # of an error; its end tells most


def answer(question: str, **facts: Any) -> None:
    """Print an answer, and append it to the file."""
    line = json.dumps({"part": os.environ.get(PART), "question": question, **facts}, default=str)
    print(line, flush=True)
    if FILE in os.environ:
        with Path(os.environ[FILE]).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" or (report.when == "setup" and not report.passed):
        answer(item.nodeid, outcome=report.outcome, seconds=round(call.duration, 2), **_found(item))
        if not report.passed:
            _explain(item, report)
    return report


def _found(item: pytest.Item) -> dict[str, Any]:
    """What the test recorded, and the figures of a benchmark."""
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    return {**dict(item.user_properties), **(benchmark.extra_info if benchmark else {})}


def _explain(item: pytest.Item, report: pytest.TestReport) -> None:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    answer(item.nodeid, why=text[-LONGEST_TEXT:])
