"""YAML of plain values alone, so that a stranger's settings are nothing but settings."""

from typing import Any

import yaml

MAX_DEPTH = 10


def load_plain(text: str) -> Any:
    """Text, numbers, lists, and mappings by name.

    Raises `yaml.YAMLError` for all else that YAML can say: tags, dates, nodes within themselves
    or so often that they fill the memory, nesting without end.
    """
    try:
        value = yaml.load(text, _PlainLoader)
    except ValueError as error:  # a number or a date that is none
        raise yaml.YAMLError(str(error)) from error
    _require_plain_values(value)
    return value


class _PlainLoader(yaml.SafeLoader):
    """Refuses what is no plain value before it makes anything of it."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        for what in ("anchor", "tag"):  # an alias has an anchor too
            if getattr(event, what, None) is not None:
                raise yaml.YAMLError(f"the {what} {getattr(event, what)}, expected plain values")
        if isinstance(event, yaml.CollectionStartEvent) and self.depth == MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {MAX_DEPTH} deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


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
