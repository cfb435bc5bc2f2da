"""Mistakes that the person at the keyboard can mend, and how a command reports them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 2


class UserError(ValueError):
    """Says in one line what was given, what was expected, and what to do."""


@contextmanager
def user_errors_in_one_line() -> Iterator[None]:
    """Print a `UserError` as one line on standard error and exit with code 2.

    Every other exception is a bug of ours and keeps its traceback.
    """
    try:
        yield
    except UserError as error:
        line = " ".join(str(error).split())
        print(f"vaekit: error: {line}", file=sys.stderr, flush=True)
        sys.exit(EXIT_CODE)
