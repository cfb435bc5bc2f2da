"""A file that is not what was written: how its reader says so, and how a person is told."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from vaekit.errors import UserError

T = TypeVar("T")


class Damaged(Exception):  # noqa: N818 - a state of a file, no mistake of the code
    """Why a file can't be what was written: a reader knows that, and no path and no remedy."""


@contextmanager
def damage_told(path: Path, remedy: str) -> Iterator[None]:
    """Have `Damaged` in the block become a `UserError` that names the file and ends in `remedy`."""
    try:
        yield
    except Damaged as damage:
        raise UserError(f"{path}: {damage}; {remedy}") from damage


@contextmanager
def as_written() -> Iterator[None]:
    """Have values that are absent or of another kind than vaekit writes become `Damaged`.

    The block only takes values out of what was parsed: a forged file can have a hash that fits.
    """
    try:
        yield
    except UserError as error:  # of a setting, say
        raise Damaged(str(error)) from error
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
        raise Damaged(f"not as vaekit writes it ({error!r})") from error


def require_version(found: Any, version: int) -> None:
    """Raise `Damaged` where what was found is another version of a format than the one to read."""
    if found != version:
        is_newer = isinstance(found, int) and found > version
        by_whom = ", so it is of a newer vaekit: install that" if is_newer else ""
        raise Damaged(f"format version {found!s:.100}, expected {version}{by_whom}")


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
