"""Parts of the latents of an image set, kept beside the file that they make once all are there."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vaekit.errors import UserError
from vaekit.storage.damage import Damaged
from vaekit.storage.tensors import read_tensors, write_tensors

FORMAT, FORMAT_VERSION = "vaekit-latents-part", 1
PARTS = ".parts-"  # how the names of their folders begin
MOST_BATCHES = 32  # of a part, whose encoding is lost where it is killed
MANY_PARTS = 4  # of a rank, among which one more than another has is no matter

_LATENTS = "latents"


class Part(NamedTuple):
    """Some rows of the latents, on disk once they are encoded."""

    path: Path
    rows: range

    def batches(self, size: int) -> list[slice]:
        """The rows, so many at a time."""
        stops = (min(start + size, self.rows.stop) for start in self.rows[::size])
        return [*map(slice, self.rows[::size], stops)]


def plan_parts(path: Path, count: int, batch_size: int, num_ranks: int) -> list[Part]:
    """The parts of `count` rows: whole batches, counted from the first row whoever encodes them.

    Few parts are divided evenly among the ranks; many are the same for any number of ranks.
    """
    of_a_rank = -(-count // (batch_size * num_ranks))
    num_parts = -(-of_a_rank // MOST_BATCHES)
    in_a_part = MOST_BATCHES if num_parts > MANY_PARTS else -(-of_a_rank // num_parts)
    every = range(count)
    size = in_a_part * batch_size
    ranges = [every[start : start + size] for start in every[::size]]
    folder = _folder(path)
    return [Part(folder / f"{it.start:012d}-{it.stop:012d}.safetensors", it) for it in ranges]


def parts_there(path: Path, parts: Sequence[Part], made_of: Mapping[str, Any]) -> list[bool]:
    """Which parts are there, whole and made of these; makes the folder for the others."""
    folder = _folder(path)
    if folder.is_symlink():  # of a stranger, who wants files of ours removed
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    # A network's file system remembers for a while that a name was asked for in vain.
    names = {path.name for path in folder.iterdir()}
    return [part.path.name in names and _read(part, made_of) is not None for part in parts]


def write_part(part: Part, latents: Tensor, made_of: Mapping[str, Any]) -> None:
    """Keep the latents [n, 2 * latent_dim] of its rows, and what they were made of."""
    write_tensors(
        part.path, {_LATENTS: latents}, made_of, format_name=FORMAT, version=FORMAT_VERSION
    )


def read_part(part: Part, made_of: Mapping[str, Any]) -> NDArray[np.float32]:
    """What `write_part` kept. Raises `UserError` where it is not there any more, or not here."""
    latents = _read(part, made_of)
    if latents is None:
        raise UserError(
            f"{part.path}: what was written there a moment ago is gone; give a run folder on a "
            f"file system that all machines share, and the same command goes on"
        )
    return latents.numpy()


def remove_parts(path: Path) -> None:
    """Remove those of `path`, whatever they are of."""
    folder = _folder(path)
    if folder.exists():
        shutil.rmtree(folder)


def _folder(path: Path) -> Path:
    return path.with_name(f"{PARTS}{path.name}")


def _read(part: Part, made_of: Mapping[str, Any]) -> Tensor | None:
    """None where it is not there, not whole, or made of something else."""
    try:
        tensors, metadata = read_tensors(part.path, format_name=FORMAT, version=FORMAT_VERSION)
    except Damaged:
        return None
    return tensors[_LATENTS] if metadata == made_of else None
