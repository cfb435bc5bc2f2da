"""What the files of a folder settled, kept beside them: a set of images is found by it."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from vaekit.config import DataConfig
from vaekit.storage.damage import Damaged, as_written, typed
from vaekit.storage.sealed import read_sealed, write_sealed

SETTLED = ("background", "value_range")
# What settles before the images are read: all of it, and nothing else, is in the keys.
_IN_PIXELS = (
    "image_size", "fit", "background", "channels", "value_range", "pages", "reading",
    "skip_unreadable",
)  # fmt: skip


class Settled(NamedTuple):
    """What was left open, as the files settled it."""

    data: DataConfig
    is_split: bool  # whether the set depends on the seed


def in_pixels(data: DataConfig) -> dict[str, Any]:
    """The settings that the pixels depend on."""
    return {name: value for name, value in asdict(data).items() if name in _IN_PIXELS}


def read_settled(path: Path, data: DataConfig, version: int) -> Settled | None:
    """What `write_settled` kept of `data`; None where nothing is or it is damaged."""
    try:
        values = read_sealed(path, version=version)
        with as_written():
            background, value_range = (typed(values[name], str) for name in SETTLED)
            settled = replace(data, background=background, value_range=value_range)
            return Settled(settled, typed(values["is_split"], bool))
    except (OSError, Damaged):
        return None


def write_settled(path: Path, settled: Settled, version: int) -> None:
    open_before = {name: getattr(settled.data, name) for name in SETTLED}
    values = {"format_version": version, **open_before, "is_split": settled.is_split}
    write_sealed(path, values)
