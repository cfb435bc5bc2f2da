"""Mistakes that the person at the keyboard can mend, and how a command reports them."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

EXIT_CODE = 2


class UserError(ValueError):
    """Says in one line what was given, what was expected, and what to do."""


@contextmanager
def user_errors_in_one_line() -> Iterator[None]:
    """Report in one line, without a traceback, what is no bug of ours.

    A `UserError`, and a file that the system refuses, end the process with code 2; Ctrl-C and a
    closed pipe with 130 and 141, as shells have it.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read the output has gone, as `head` does. Python would flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except UserError as error:
        _exit(f"error: {error}", EXIT_CODE)
    except OSError as error:
        if error.errno is None:
            raise
        _exit(
            f"error: {error.filename or 'a file or the output'}: {error.strerror}; check the "
            f"path, its permissions and the space on its disk",
            EXIT_CODE,
        )
    except KeyboardInterrupt:
        _exit("interrupted; the same command starts again or goes on", 128 + signal.SIGINT)


def _exit(message: str, code: int) -> NoReturn:
    print(f"vaekit: {' '.join(message.split())}", file=sys.stderr, flush=True)
    sys.exit(code)
