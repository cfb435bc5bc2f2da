"""YAML of plain values alone, so that a stranger's settings are nothing but settings."""

from typing import Any

import yaml

MAX_DEPTH = 10


def load_plain(text: str) -> Any:
    """Text, numbers, lists, and mappings by name.

    Raises `yaml.YAMLError` for all else that YAML can say: tags, dates, nodes within themselves
    or so often that they fill the memory, nesting without end.
    """
    _require_plain(text)
    try:
        value = yaml.safe_load(text)
    except ValueError as error:  # a number or a date that is none
        raise yaml.YAMLError(str(error)) from error
    _require_plain_values(value)
    return value


def _require_plain(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {MAX_DEPTH} deep")
        for what in ("anchor", "tag"):  # an alias has an anchor too
            if getattr(event, what, None) is not None:
                raise yaml.YAMLError(f"the {what} {getattr(event, what)}, expected plain values")


def _require_plain_values(value: Any) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str):
                raise yaml.YAMLError(f"{key!r}, expected a name")
            _require_plain_values(each)
    elif isinstance(value, list):
        for each in value:
            _require_plain_values(each)
    elif not isinstance(value, str | int | float | None):
        raise yaml.YAMLError(f"{value!r}, expected text or a number")
