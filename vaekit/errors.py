"""What the person at the keyboard is told: mistakes that they can mend, and what is happening."""

import errno
import io
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

EXIT_CODE = 2

_REMEDY = "check the path, its permissions and the space on its disk"
_FREE_SPACE = "free space and give the same command again, or give a folder on another disk"
_REMEDIES = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) and give the same command again",
    errno.EROFS: "make its disk writable, or give a folder on another one",
}

_PACKAGES = {"yaml": "pyyaml", "sklearn": "scikit-learn", "PIL": "pillow"}  # by what is imported
_LIGHT = "onnx onnxruntime numpy pyyaml jsonargparse[signatures]"


# A setting in a text, outside of a command in backticks.
_FLAG = re.compile(r"(`[^`]*`)|(?<![\w-])--(?=[A-Za-z])")
on_command_line = False  # whether what is said is said by a command


class UserError(ValueError):
    """Says in one line what was given, what was expected, and what to do.

    Settings are written as flags, as --data.root, which is what a command says. In Python, the
    same text names them as the fields and arguments that they are there: data.root.
    """

    def __str__(self) -> str:
        return as_settings_are_named(super().__str__())


def as_settings_are_named(text: str) -> str:
    """`text` as it is while a command runs, and elsewhere without the dashes of its flags."""
    return text if on_command_line else _FLAG.sub(lambda match: match[1] or "", text)


@contextmanager
def user_errors_in_one_line() -> Iterator[None]:
    """Report in one line, without a traceback, what is no bug of ours: this is a command.

    A `UserError`, a file that the system refuses and a package that is not installed end the
    process with code 2; Ctrl-C and a closed pipe with 130 and 141, as shells have it.
    """
    global on_command_line
    escape_what_cannot_be_shown()
    was_one_before, on_command_line = on_command_line, True
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read the output has gone, as `head` does. Python would flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except UserError as error:
        _exit(f"error: {error}", EXIT_CODE)
    except ModuleNotFoundError as error:
        module = str(error.name).partition(".")[0]
        if module in ("None", "vaekit"):
            raise
        _exit(
            f"error: the Python package {_PACKAGES.get(module, module)} is not installed; bundles "
            f"are checked and explored with `pip install {_LIGHT}`, all else takes vaekit "
            f"installed with its dependencies",
            EXIT_CODE,
        )
    except OSError as error:
        if error.errno is None:
            raise
        name = error.filename or "a file or the output"
        remedy = _REMEDIES.get(error.errno, _REMEDY)
        _exit(f"error: {name}: {error.strerror}; {remedy}", EXIT_CODE)
    except KeyboardInterrupt:
        _exit("interrupted; the same command starts again or goes on", 128 + signal.SIGINT)
    finally:
        on_command_line = was_one_before


def say(line: str) -> None:
    """Print a line on standard error; standard output is left to results."""
    print(f"vaekit: {as_settings_are_named(line)}", file=sys.stderr, flush=True)


def escape_what_cannot_be_shown() -> None:
    """Have standard output escape what its encoding lacks, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def some_of(names: Sequence[str]) -> str:
    """The first five names on one line, and how many there are in all."""
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown}, ... ({len(names)} in all)"


def _exit(message: str, code: int) -> NoReturn:
    print(f"vaekit: {' '.join(message.split())}", file=sys.stderr, flush=True)
    sys.exit(code)
