"""images.json: what of the files a run was trained on, and what it was not."""

from dataclasses import asdict
from pathlib import Path

from vaekit.images.reading import Reading, reading_from_dict
from vaekit.storage.damage import as_written
from vaekit.storage.sealed import read_sealed, write_sealed

FORMAT_VERSION = 1


def write_reading(path: Path, reading: Reading) -> None:
    write_sealed(path, {"format_version": FORMAT_VERSION, **asdict(reading)})


def read_reading(path: Path) -> Reading:
    """What `write_reading` wrote. Raises `Damaged` where it is something else."""
    values = read_sealed(path, version=FORMAT_VERSION)
    with as_written():
        return reading_from_dict(values)
