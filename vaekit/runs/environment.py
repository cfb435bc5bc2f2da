"""The starts of a run, as its folder records them: whatever can influence result or speed."""

from pathlib import Path
from typing import Any

from vaekit.config import flatten
from vaekit.storage.damage import as_written, damage_told, typed
from vaekit.storage.files import read_json, write_json

# What may round a sum in another way; a run resumed on another of these is no longer exact.
ROUNDING = (
    "versions",
    "device",
    "cpu_capability",
    "num_processes",
    "threads",
    "tf32_convolutions",
    "execution_path",
    "git_revision",
)


def append_environment(path: Path, start: dict[str, Any]) -> None:
    """Add one start to environment.json."""
    with damage_told(path, "remove it"):
        before = read_environment(path) if path.exists() else []
    write_json(path, [*before, start])


def read_environment(path: Path) -> list[dict[str, Any]]:
    """The starts of a run, the first one first. Raises `Damaged` where they are something else."""
    starts: list[dict[str, Any]] = read_json(path)
    with as_written():
        for start in typed(starts, list):
            typed(start, dict)
    return starts


def changes_since(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What may round in another way than at an earlier start, as lines `name: before -> now`."""
    old, new = (
        flatten({name: start[name] for name in ROUNDING if name in start})
        for start in (before, now)
    )
    return [
        f"{name}: {old[name]!r:.100} -> {new[name]!r:.100}"
        for name in old
        if name in new and old[name] != new[name]
    ]
