"""Command lines, YAML files and dicts into settings.

jsonargparse parses flags; files and dicts are checked here, so that a run can be read, and go on,
where there is no jsonargparse.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from vaekit import __version__
from vaekit.config import SvmConfig, TrainConfig, fields_by_flag, flatten, to_dict
from vaekit.errors import UserError
from vaekit.storage.files import write_text
from vaekit.storage.plain_yaml import load_plain

Config = TypeVar("Config")

_NEGATIVE_RANGE = re.compile(r"-[0-9.]+(e[-+]?[0-9]+)?,.*")


def parse(component: Any, arguments: list[str] | None = None, prog: str | None = None) -> Any:
    """Fill `component` (a dataclass, a function, or a dict of them by subcommand) and call it.

    Arguments are those of the process where None is given. Returns what the component returns:
    for a dataclass, its instance. Raises `UserError` for a typo, a wrong type, an unreadable
    `--config` file.
    """
    given = sys.argv[1:] if arguments is None else arguments
    for argument in given:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{argument!r}: expected UTF-8; rename the file or folder") from error
    from jsonargparse import auto_cli

    try:
        return auto_cli(
            component,
            args=_with_negative_ranges(given),
            return_instance=True,
            parser_class=_exact_parser(),
            prog=prog,
            version=__version__,
        )
    except argparse.ArgumentError as error:
        raise UserError(f"{_in_flags(str(error))} (--help lists what there is)") from error


def _with_negative_ranges(arguments: list[str]) -> list[str]:
    """`--flag -1,1` as `--flag=-1,1`: argparse takes it for a flag of its own."""
    joined: list[str] = []
    for argument in arguments:
        if joined and _NEGATIVE_RANGE.fullmatch(argument) and joined[-1].startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def write_config(path: Path, config: TrainConfig | SvmConfig) -> None:
    write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False))


def read_config(config_type: type[Config], path: Path) -> Config:
    """The config that `write_config` wrote, equal to the one that was given to it.

    Raises `UserError` where `from_dict` does, and where the file is no YAML or was cut off.
    """
    try:
        text = path.read_text(encoding="utf-8")
        config = from_dict(config_type, load_plain(text))
        if not text.endswith("\n"):  # half a number is a number, too
            raise UserError("cut off, its last line has no end")
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: damaged, not YAML ({error}); put a good copy there") from error
    except UserError as error:
        raise UserError(f"{path}: damaged, {error}; put a good copy there") from error
    return config


def from_dict(config_type: type[Config], values: Any) -> Config:
    """The config that `to_dict` took apart and that was recorded, perhaps long ago.

    A setting that it lacks means what was done before that setting existed. Raises `UserError`
    where one of the first version is missing, and where one is unknown, of a wrong type or out of
    its range.
    """
    settings = _before(config_type) | _checked(config_type, values)
    if missing := sorted(name for name, value in settings.items() if value is MISSING):
        raise UserError(f"without {', '.join(missing)}; a run's config names every setting")
    config: Config = _build(config_type, settings)
    return config


def _build(config_type: Any, settings: dict[str, Any], prefix: str = "") -> Any:
    arguments = {
        each.name: _build(each.type, settings, f"{prefix}{each.name}.")
        if is_dataclass(each.type)
        else settings[prefix + each.name]
        for each in fields(config_type)
    }
    return config_type(**arguments)


def _before(component: Any) -> dict[str, Any]:
    """What each setting meant before it existed; MISSING for those of the first version."""
    by_flag = fields_by_flag(component) if is_dataclass(component) else {}
    return {name: each.metadata.get("before", MISSING) for name, each in by_flag.items()}


def _types(component: Any) -> dict[str, Any]:
    if is_dataclass(component):
        return {name: each.type for name, each in fields_by_flag(component).items()}
    types: dict[str, Any] = {}
    for name, kind in get_type_hints(component).items():
        if is_dataclass(kind):
            types |= {f"{name}.{key}": each for key, each in _types(kind).items()}
        elif name != "return":
            types[name] = kind
    return types


def _checked(component: Any, values: Any) -> dict[str, Any]:
    """The settings of a file, nested or not, by flag. Raises `UserError` where one is wrong."""
    if not isinstance(values, dict):
        raise UserError("expected settings by name")
    types, checked = _types(component), {}
    for name, value in flatten(values).items():
        if name in types:
            try:
                checked[name] = _as(types[name], value)
            except (ValueError, OverflowError) as error:
                wanted = f" {value!r:.100}: expected {_as_people_say(types[name])}"
                said = " has no value" if value is None else wanted
                raise UserError(f"--{name}{said}") from error
        elif not any(each.startswith(f"{name}.") for each in types):
            raise UserError(f"{name:.100} is no setting")
        elif value != {}:
            raise UserError(f"{name} holds no settings")
    return checked


def _as(kind: Any, value: Any) -> Any:
    """`value` as a value of this type. Raises `ValueError` where it is of another one."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        for each in options:
            with suppress(ValueError):
                return _as(each, value)
    elif origin in (list, tuple, Sequence) and isinstance(value, list | tuple):
        items = [_as(options[0], each) for each in value]
        return tuple(items) if origin is tuple else items
    elif (kind is float and type(value) is int) or (kind in (float, int) and type(value) is str):
        return kind(value)  # for PyYAML 1e-3 is text
    elif value in options or type(value) is kind:  # the options of a Literal
        return value
    raise ValueError(value)


def _given(component: Any, given: str) -> dict[str, Any]:
    """The settings of a `--config` by flag: of a file, or of what could stand in one.

    One that names every setting of the first version is the config of a run, and lacks what did
    not exist when that was recorded.
    """
    is_file = os.path.isfile(given)  # noqa: PTH113 - JSON may be too long for a Path
    try:
        values = load_plain(Path(given).read_text(encoding="utf-8") if is_file else given)
        if not is_file and not isinstance(values, dict):
            raise UserError("no such file")
        settings = _checked(component, values)
    except (UserError, UnicodeDecodeError, yaml.YAMLError) as error:
        damage = f"damaged, not YAML ({error})" if is_file else "no such file"
        said = error if isinstance(error, UserError) else damage
        raise argparse.ArgumentError(None, f"--config {given}: {said}") from error
    whole = _before(component) | settings
    return settings if MISSING in whole.values() else whole


@cache
def _exact_parser() -> Any:
    """The parser behind every command line, made where there is something to parse."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(
        docstring_parse_attribute_docstrings=True,
        import_path_denylist=["*"],
        add_print_completion_argument=find_spec("shtab") is not None,
    )

    class ExactParser(ArgumentParser):
        """Takes no abbreviated flags, so that a typo is an error, and no null for a value."""

        component: Any = object  # of commands, which have no settings of their own

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(allow_abbrev=False, exit_on_error=False, **kwargs)

        def add_class_arguments(self, component: Any, *args: Any, **kwargs: Any) -> Any:
            if not args:  # it is no group of another one
                self.component, self.epilog = component, _example(component)
            return super().add_class_arguments(component, *args, **kwargs)

        def add_function_arguments(self, function: Any, *args: Any, **kwargs: Any) -> Any:
            self.component, self.epilog = function, _example(function)
            return super().add_function_arguments(function, *args, **kwargs)

        def add_argument(self, *args: Any, **kwargs: Any) -> Any:
            # A group gets a copy of this text, which sees nothing of the function around it.
            return _without_imports(super().add_argument(*args, **_as_people_type(kwargs)))

        def parse_args(self, *args: Any, **kwargs: Any) -> Any:
            settings = super().parse_args(*args, **kwargs)
            for name, kind in _types(self.component).items():
                # jsonargparse lets it pass in the JSON of a group.
                if "." in name and settings.get(name) is None and NoneType not in get_args(kind):
                    raise argparse.ArgumentError(None, f"--{name} has no value")
            return settings

    return ExactParser


def _example(component: Any) -> str | None:
    """The command that its docstring shows, which jsonargparse leaves out."""
    match = re.search(r"As in `([^`]+)`", component.__doc__ or "")
    return match and f"example: {match[1]}"


def _as_people_type(kwargs: dict[str, Any]) -> dict[str, Any]:
    """An argument as jsonargparse describes it, but for switches, words and files of settings."""
    from jsonargparse import ActionConfigFile, ActionYesNo  # type: ignore[attr-defined]

    action = kwargs.get("action")
    typehint = getattr(action, "_typehint", None)
    if kwargs.get("type") is bool:  # a switch needs no value
        return {**kwargs, "action": ActionYesNo, "type": None}
    if typehint == list[str]:  # jsonargparse would want a single one, in brackets
        return {**kwargs, "action": None, "type": str, "nargs": "+"}
    if typehint == Sequence[str]:
        return {**kwargs, "action": None, "type": str, "nargs": "*", "default": []}
    return {**kwargs, "action": _settings_file()} if action is ActionConfigFile else kwargs


def _without_imports(action: Any) -> Any:
    """An argument for a group of settings, in whose place jsonargparse would take a class."""
    if hasattr(action, "resolve_subclass_spec"):
        action.resolve_subclass_spec = lambda value: value
    return action


@cache
def _settings_file() -> Any:
    from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

    class SettingsFile(ActionConfigFile):
        """A file of settings and of nothing else, whatever jsonargparse would take from one."""

        def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
            for name, value in _given(parser.component, values).items():
                cfg[name] = value

    return SettingsFile


def _as_people_say(kind: Any) -> str:
    """A type as in `int | auto`."""
    options = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(_as_people_say(each) for each in options)
    if options == ("auto",):
        return "auto"
    return "None" if kind is NoneType else _in_flags(str(kind))


def _in_flags(message: str) -> str:
    """jsonargparse's message on one line, with its Python terms put as a user typed them."""
    message = " ".join(message.split())
    message = re.sub(r'Parser key "([^"]+)"', r"--\1", message)
    message = re.sub(r"(?:typing\.)?Literal\['auto'\]", "auto", message)
    message = message.replace("<class 'bool'>", "true | false")
    message = re.sub(
        r"Does not validate against any of the Union subtypes Subtypes: \[(.*)\] Errors: .*"
        r" Given value type: .* Given value: (.*)",
        lambda match: f"expected {' | '.join(match[1].split(', '))}, given: {match[2]}",
        message,
    )
    message = re.sub(r"(?:typing\.)?Literal\[([^\]]+)\]", r"value among \1", message)
    return re.sub(r"<class '([^']+)'>", r"\1", message)
