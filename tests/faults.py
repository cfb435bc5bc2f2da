"""The faults that the tests inject, by number: `@pytest.mark.injects(1)`, or `(1, times=50)`."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import pytest


class Fault(NamedTuple):
    what: str
    outcome: str  # what the tests hold


FAULTS = {
    1: Fault(
        "training killed (SIGKILL) at random times",
        "resumed from the newest checkpoint to the uninterrupted run's weights, bit for bit",
    ),
    2: Fault(
        "a kill at each step of writing a checkpoint; a run, a bundle or a cache broken off",
        "the old one or the new one is there, whole; a run resumes bit for bit",
    ),
    3: Fault(
        "SIGTERM and SIGINT at awkward moments, twice, to any rank; the launcher gone",
        "all ranks stop after the same step with a checkpoint, 143 or 130; a second signal stops "
        "at once",
    ),
    4: Fault(
        "disk full, read-only, over quota, or closed, within each write of each stage",
        "one line; the old file whole; the same command finishes once there is room",
    ),
    5: Fault(
        "each file that a stage reads truncated, flipped, emptied, deleted",
        "refused by name with the command that mends it; a checkpoint gives way to the one before",
    ),
    6: Fault(
        "stray files, links, pipes, a folder in the place of a file",
        "left alone or named; nothing is written through a link",
    ),
    7: Fault("two processes in one folder", "the second is refused; the first ends as if alone"),
    8: Fault(
        "settings, data, weights, versions or hardware changed between two stages or starts",
        "refused with the difference where results would change, else noted in a line",
    ),
    9: Fault(
        "one of several ranks or machines killed, stalled, cut off; another number of ranks",
        "the others end and name it where they can tell; relaunched to the same weights",
    ),
    10: Fault(
        "a pixel, loss, weight, or one rank's gradient that is not finite",
        "no update on any rank; the step is named",
    ),
    11: Fault(
        "data truncated, flipped, of another kind; a gzip bomb, an endless file",
        "one line; nothing is expanded or kept",
    ),
    12: Fault(
        "image files damaged, huge, of odd modes and names, a hundred thousand",
        "read as meant, or named, or left out where asked",
    ),
    13: Fault(
        "pickles under every name, settings and YAML that name code",
        "no code runs, nothing is imported; one line",
    ),
    14: Fault("safetensors, .npy and JSON files forged or fuzzed", "read as they are, or one line"),
    15: Fault(
        "bundles damaged or forged",
        "refused with what is wrong, before a graph is loaded where its hash or form tells",
    ),
    16: Fault(
        "one class, constant or too few latents, none that is finite; SVMs forged",
        "an SVM where one can be fitted; else one line, and the earlier one stays",
    ),
    17: Fault("cuML without a usable GPU", "scikit-learn fits the same SVM, and why is said"),
    18: Fault("fewer ranks than asked for", "one line, instead of each doing the whole work"),
    19: Fault("a tracker that raises", "it is named once; the run goes on to the same result"),
    20: Fault(
        "odd paths, no HOME, no network, ASCII terminals, a clock set back",
        "every stage works, or names what it lacks in a line",
    ),
    21: Fault(
        "hostile requests to the explorer, a thousand at once",
        "nothing outside the page and the bundle is served, to the loopback alone",
    ),
}


def injections(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> Counter[int]:
    """How often each fault was injected, by the tests with these reports."""
    counts: Counter[int] = Counter()
    for report in reports:
        if isinstance(report, pytest.CollectReport):  # of a file that could not be imported
            continue
        for name, value in report.user_properties:
            if name == "injects":
                fault, times = value  # type: ignore[misc]
                counts[fault] += times
    return counts


def table(passed: Counter[int], failed: Counter[int]) -> list[str]:
    """Rows of Markdown: each fault, how often it was injected, and what happened."""
    rows = ["| | fault | injected | what happened |", "|---:|---|---:|---|"]
    for number in sorted(passed | failed):
        fault, count = FAULTS[number], passed[number] + failed[number]
        outcome = f"{failed[number]:,} FAILED" if failed[number] else fault.outcome
        rows.append(f"| {number} | {fault.what} | {count:,} | {outcome} |")
    return rows
