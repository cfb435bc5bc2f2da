"""Command-line arguments and YAML files into dataclasses, with one-line errors."""

import argparse
import re
import sys
from typing import Any

from vaekit.errors import UserError


def parse(component: Any, arguments: list[str] | None = None, prog: str | None = None) -> Any:
    """Fill `component` (a dataclass, a function, or a dict of them by subcommand) and call it.

    Arguments are those of the process where None is given. Returns what the component returns:
    for a dataclass, its instance. Raises `UserError` for a typo, a wrong type, an unreadable
    `--config` file.
    """
    for argument in sys.argv[1:] if arguments is None else arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{argument!r}: expected UTF-8; rename the file or folder") from error
    # Imported where there is something to parse: the library does without jsonargparse.
    from jsonargparse import auto_cli

    from vaekit.exact_parser import ExactParser

    try:
        return auto_cli(
            component, args=arguments, return_instance=True, parser_class=ExactParser, prog=prog
        )
    except argparse.ArgumentError as error:
        raise UserError(f"{_in_flags(str(error))} (--help lists what there is)") from error


def _in_flags(message: str) -> str:
    """jsonargparse's message on one line, with its Python terms put as a user typed them."""
    message = " ".join(message.split())
    message = re.sub(r'Parser key "([^"]+)"', r"--\1", message)
    message = re.sub(r"(?:typing\.)?Literal\[([^\]]+)\]", r"value among \1", message)
    return re.sub(r"<class '([^']+)'>", r"\1", message)
