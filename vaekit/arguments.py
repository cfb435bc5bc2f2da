"""Command-line arguments and YAML files into dataclasses, with one-line errors."""

import argparse
import re
from typing import Any

from jsonargparse import ActionYesNo, ArgumentParser, auto_cli, set_parsing_settings

from vaekit.errors import UserError

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class _ExactParser(ArgumentParser):
    """Takes no abbreviated flags, so that a typo is an error."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, exit_on_error=False, **kwargs)

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("type") is bool:  # a switch needs no value
            kwargs["action"] = ActionYesNo
            del kwargs["type"]
        elif getattr(kwargs.get("action"), "_typehint", None) == list[str]:
            # A positional list is one or more words; jsonargparse would want one in brackets.
            del kwargs["action"]
            kwargs |= {"type": str, "nargs": "+"}
        return super().add_argument(*args, **kwargs)


def parse(component: Any, arguments: list[str] | None = None, prog: str | None = None) -> Any:
    """Fill `component` (a dataclass, a function, or a dict of them by subcommand) and call it.

    Arguments are those of the process where None is given. Returns what the component returns:
    for a dataclass, its instance. Raises `UserError` for a typo, a wrong type, an unreadable
    `--config` file.
    """
    try:
        return auto_cli(
            component, args=arguments, return_instance=True, parser_class=_ExactParser, prog=prog
        )
    except argparse.ArgumentError as error:
        raise UserError(f"{_in_flags(str(error))} (--help lists what there is)") from error


def _in_flags(message: str) -> str:
    """jsonargparse's message on one line, with its Python terms put as a user typed them."""
    message = " ".join(message.split())
    message = re.sub(r'Parser key "([^"]+)"', r"--\1", message)
    message = re.sub(r"(?:typing\.)?Literal\[([^\]]+)\]", r"value among \1", message)
    return re.sub(r"<class '([^']+)'>", r"\1", message)
