"""What is said to the person at the keyboard while a command runs."""

import sys
from collections.abc import Sequence


def say(line: str) -> None:
    """Print a line on standard error; standard output is left to results."""
    print(f"vaekit: {line}", file=sys.stderr, flush=True)


def some_of(names: Sequence[str]) -> str:
    """The first five names and how many there are in all."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown}, ... ({len(names)} in all)"
