"""Facts in JSON: sealed with their own sha256, and taken apart without trust."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from vaekit.errors import UserError
from vaekit.storage.files import json_text, read_json, write_json

T = TypeVar("T")


def write_sealed(path: Path, facts: dict[str, Any]) -> None:
    """`write_json` of `facts` with the sha256 of their text, so that any damage shows."""
    write_json(path, {**facts, "sha256": _sha256(facts)})


def read_sealed(path: Path, *, version: int, remedy: str) -> dict[str, Any]:
    """What `write_sealed` wrote with this `format_version`.

    Raises `UserError`, ending in `remedy`, where it is damaged or of another version.
    """
    facts = read_json(path, remedy)
    if not isinstance(facts, dict) or facts.get("format_version") != version:
        raise UserError(f"{path}: expected format version {version}; {remedy}")
    if not is_as_sealed(path, facts):
        raise UserError(f"{path}: damaged, its content does not match its sha256; {remedy}")
    return facts


def is_as_sealed(path: Path, facts: dict[str, Any]) -> bool:
    """Whether the file is, to the letter, what `write_sealed` wrote."""
    rest = {name: value for name, value in facts.items() if name != "sha256"}
    try:
        content = json_text(facts).encode()
        return facts.get("sha256") == _sha256(rest) and path.read_bytes() == content
    except (ValueError, RecursionError):  # NaN, or characters that UTF-8 has not: not ours
        return False


@contextmanager
def expected_of(path: Path, remedy: str) -> Iterator[None]:
    """Say that the facts of a file, damaged or forged, are not as vaekit writes them.

    The block only takes values out of what was parsed: with a hash that fits, they can still be
    absent or of another kind.
    """
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: not as vaekit writes it ({error!r}); {remedy}") from error


def typed(value: Any, kind: type[T]) -> T:
    """`value`, which must be of exactly this kind."""
    if type(value) is not kind:
        raise TypeError(f"{value!r:.100} is no {kind.__name__}")
    return value


def number(value: Any) -> float:
    """`value`, which must be a finite int or float."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"{value!r:.100} is no finite number")
    return float(value)


def strings(values: Any) -> tuple[str, ...]:
    """`values`, which must be a list of strings."""
    return tuple(typed(value, str) for value in typed(values, list))


def _sha256(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json_text(facts).encode()).hexdigest()
