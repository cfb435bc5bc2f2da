"""What is said to the person at the keyboard while a command runs."""

import io
import sys
from collections.abc import Sequence


def say(line: str) -> None:
    """Print a line on standard error; standard output is left to results."""
    print(f"vaekit: {line}", file=sys.stderr, flush=True)


def escape_what_cannot_be_shown() -> None:
    """Have standard output escape what its encoding lacks, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def some_of(names: Sequence[str]) -> str:
    """The first five names on one line, and how many there are in all."""
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown}, ... ({len(names)} in all)"
