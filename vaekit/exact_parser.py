"""The parser behind every command line and configuration file."""

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import (  # type: ignore[attr-defined]
    ActionConfigFile,
    ActionYesNo,
    ArgumentParser,
    set_parsing_settings,
)

from vaekit.storage.plain_yaml import load_plain

_ESCAPED_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class _PlainConfigFile(ActionConfigFile):
    """A file, or JSON, of settings and of nothing else.

    jsonargparse would import a class that stands in the place of settings, and read other files.
    """

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        is_file = os.path.isfile(values)  # noqa: PTH113 - JSON may be too long for a Path
        given = f"--config {values}" if is_file else "settings"
        try:
            text = Path(values).read_text(encoding="utf-8") if is_file else values
            settings = load_plain(text) if is_file else json.loads(text)
        except (ValueError, yaml.YAMLError) as error:
            said = f"damaged, not YAML ({error})" if is_file else "no such file"
            raise argparse.ArgumentError(None, f"--config {values}: {said}") from error
        if not isinstance(settings, dict):
            raise argparse.ArgumentError(None, f"--config {values}: expected a file of settings")
        known = {action.dest for action in parser._actions} - {self.dest, "help"}
        groups = {name.rpartition(".")[0] for name in known}
        for name in _names(settings):
            if name in groups:
                raise argparse.ArgumentError(None, f"{given}: {name} holds no settings")
            if name not in known:
                raise argparse.ArgumentError(None, f"{given}: {name} is no setting")
        super().__call__(  # type: ignore[no-untyped-call]
            parser, cfg, _as_yaml(settings), option_string
        )


def _as_yaml(settings: dict[str, Any]) -> str:
    """JSON that is YAML too, which has no pairs of surrogates and fewer characters unescaped."""
    text = json.dumps(settings, ensure_ascii=False)
    return _ESCAPED_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _names(settings: dict[str, Any]) -> list[str]:
    """The names of settings, as data.name."""
    names = []
    for name, value in settings.items():
        if isinstance(value, dict):
            names += [f"{name}.{each}" for each in _names(value)]
        else:
            names.append(name)
    return names


class ExactParser(ArgumentParser):
    """Takes no abbreviated flags, so that a typo is an error, and no null where none is meant."""

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
        elif getattr(kwargs.get("action"), "_typehint", None) == Sequence[str]:  # or no word at all
            del kwargs["action"]
            kwargs |= {"type": str, "nargs": "*", "default": []}
        elif kwargs.get("action") is ActionConfigFile:
            kwargs["action"] = _PlainConfigFile
        return super().add_argument(*args, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        settings = super().parse_args(*args, **kwargs)
        for action in self._actions:  # jsonargparse lets it pass in a file and in a group's JSON
            if action.default is not None and settings.get(action.dest, action.default) is None:
                raise argparse.ArgumentError(None, f"--{action.dest} has no value")
        return settings
