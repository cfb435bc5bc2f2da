"""Parts of a long work on files, done by all ranks side by side, each kept once it is done.

A part is NAME.rows.npy, a row for each file or page, whatever else its work writes, as NAME.npy,
and NAME.json, which seals them and is written last.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from vaekit.errors import UserError, say
from vaekit.images.mapped import BLOCK, Mapped
from vaekit.images.ranks import Ranks
from vaekit.images.walk import Walk
from vaekit.storage.damage import Damaged, as_written, typed
from vaekit.storage.files import file_sha256, fsync
from vaekit.storage.sealed import read_sealed, write_sealed

FORMAT_VERSION = 4
ROWS = ".rows.npy"
LEFT_BEHIND = 24 * 3600  # seconds after which what a killed process was writing is cleared away

_KEY = np.dtype("S12")  # a hash of 96 bits

Rows = NDArray[Any]  # with the fields of `rows_of`, and perhaps more
Settings = dict[str, Any]  # JSON values, on which what is in a part depends


class Part(NamedTuple):
    """What one rank made of some files."""

    folder: Path
    name: str
    rows: Rows  # a memory map
    values: dict[str, Any]  # JSON values: `files`, and what the work says of all rows

    @property
    def sha256(self) -> dict[str, str]:
        """Of its files, by their names."""
        return {name: sha256 for name, (_, sha256) in self.values["files"].items()}


# Does the work on rows, writes files whose names begin with a path, and says more of them.
Work = Callable[[Rows, str], tuple[Rows, dict[str, Any]]]


def rows_of(found: Walk, files: NDArray[np.int64], pages: NDArray[np.int32] | None = None) -> Rows:
    """What tells files, and pages in them, from others: name, size, time of change, page."""
    names = [os.fsencode(found.name(index)) for index in files.tolist()]
    rows = np.zeros(len(files), with_names(max(map(len, names), default=1)))
    rows["name"], rows["size"], rows["time"] = names, found.sizes[files], found.times[files]
    if pages is not None:
        rows["page"] = pages
    return rows


def with_names(width: int) -> list[tuple[str, str]]:
    """The fields of rows whose names have so many bytes at most."""
    return [("name", f"S{width}"), ("size", "<i8"), ("time", "<i8"), ("page", "<i4")]


def extended(rows: Rows, fields: Sequence[tuple[Any, ...]]) -> Rows:
    """`rows` with more fields, which are still zero."""
    made = np.zeros(len(rows), rows.dtype.descr + list(fields))
    for name in rows.dtype.names or ():
        made[name] = rows[name]
    return made


def find(known: Sequence[Rows], wanted: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Where each of the keys `wanted` [N] is among all rows `known`, the last of several.

    It is -1 where it is nowhere.
    """
    count = sum(map(len, known))
    if not count:
        return np.full(len(wanted), -1)
    keys = keys_of(count, Mapped(known, np.arange(count)).__getitem__)
    order = np.argsort(keys, kind="stable")
    places = np.empty(len(wanted), np.int64)
    for start in range(0, len(wanted), BLOCK):
        some = wanted[start : start + BLOCK]
        found = order[np.searchsorted(keys, some, side="right", sorter=order) - 1]
        places[start : start + BLOCK] = np.where(keys[found] == some, found, -1)
    return places


def keys_of(count: int, rows: Callable[[NDArray[np.int64]], Rows]) -> NDArray[np.bytes_]:
    """A hash [N] of all that tells rows from one another, of which `rows` makes some."""
    keys = np.empty(count, _KEY)
    for start in range(0, count, BLOCK):
        which = np.arange(start, min(start + BLOCK, count))
        some = rows(which)
        columns = (some[name].tolist() for name in ("size", "time", "page", "name"))
        keys[which] = [
            hashlib.blake2b(b"%d %d %d %s" % each, digest_size=_KEY.itemsize).digest()
            for each in zip(*columns, strict=True)
        ]
    return keys


def read_parts(folder: Path, prefix: str, settings: Settings) -> list[Part]:
    """The parts in a folder that are whole; others are removed, and it is said why."""
    parts = []
    for path in sorted(folder.glob(f"{prefix}-*.json")):
        try:
            parts.append(read_part(folder, path.stem, settings))
        except (OSError, Damaged) as fault:
            remove_part(folder, path.stem, str(fault))
    return parts


def remove_part(folder: Path, name: str, fault: str) -> None:
    """Remove what is damaged, so that it is made again."""
    say(f"{folder / name}: {fault}; it is made again from the files")
    for path in folder.glob(f"{name}.*"):
        path.unlink(missing_ok=True)


def read_part(folder: Path, name: str, settings: Settings | None = None) -> Part:
    """A part whose rows are whole. Raises `Damaged` where it is not, or is of other settings.

    Of its other files only the sizes are looked at.
    """
    sealed = folder / f"{name}.json"
    try:
        values = read_sealed(sealed, version=FORMAT_VERSION)
    except Damaged as fault:
        raise Damaged(f"{sealed.name}: {fault}") from fault
    with as_written():
        files = {
            typed(file, str): (typed(size, int), typed(sha256, str))
            for file, (size, sha256) in values["files"].items()
        }
        if settings is not None and values["settings"] != settings:
            raise Damaged("made with other settings")
    for file, (size, _) in files.items():
        path = folder / file
        if not path.is_file() or path.stat().st_size != size:
            raise Damaged(f"{file} is missing or not whole")
    if file_sha256(folder / f"{name}{ROWS}") != files[f"{name}{ROWS}"][1]:
        raise Damaged(f"{name}{ROWS} is not the file that was written")
    return Part(folder, name, open_memmap(folder / f"{name}{ROWS}", mode="r"), values)


def plan(
    folder: Path,
    prefix: str,
    missing: NDArray[np.int64],
    per_part: int,
    rows: Callable[[NDArray[np.int64]], Rows],
) -> dict[str, int]:
    """Write down what is to be done in parts: their names, and how many rows each has.

    Those are all that are `missing`, of which `rows` makes some.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clear_away(folder)
    sealed = (path.name.split("-")[1] for path in folder.glob(f"{prefix}-*.json"))
    number = max(map(int, sealed), default=-1)
    planned = {}
    for start in range(0, len(missing), per_part):
        some = rows(missing[start : start + per_part])
        number += 1
        # Another launch may have planned other files: they are not to be mixed up.
        name = f"{prefix}-{number:05d}-{hashlib.sha256(some.tobytes()).hexdigest()[:8]}"
        np.save(_plan_of(folder, name), some)
        planned[name] = len(some)
    return planned


def do_parts(
    folder: Path,
    planned: dict[str, int],
    settings: Settings,
    work: Work,
    ranks: Ranks,
    advance: Callable[[int], None],
) -> None:
    """Each rank does every so manieth of the planned parts. All ranks must call it.

    `advance` is told how many rows other ranks have done. Raises `OSError` on all ranks where one
    can't keep its part, and `UserError` where rank 0 wrote the plan to another file system.
    """
    names = list(planned)
    for first in range(0, len(names), ranks.number):
        at_once = names[first : first + ranks.number]
        own = at_once[ranks.index] if ranks.index < len(at_once) else None
        fault = None
        if own is not None:
            try:
                _do_part(folder, own, settings, work, ranks)
            except OSError as error:
                fault = error
        if ranks.any(fault is not None):
            raise fault or OSError(errno.EIO, "another process can't keep its share", str(folder))
        of_others = [name for name in at_once if name != own]
        if of_others:
            advance(sum(planned[name] for name in of_others))


def _do_part(folder: Path, name: str, settings: Settings, work: Work, ranks: Ranks) -> None:
    path = _plan_of(folder, name)
    if not path.is_file():
        if (folder / f"{name}.json").is_file():  # another launch has just done it
            return
        raise UserError(
            f"{folder}: rank {ranks.index} on {os.uname().nodename} does not find there what rank "
            f"0 has written; give a --data.root on a file system that all machines share"
        )
    with TemporaryDirectory(dir=folder, prefix=".tmp-") as temporary:
        stem = f"{temporary}/{name}"
        rows, values = work(np.load(path), stem)
        np.save(f"{stem}{ROWS}", rows)
        files = {}
        for file in sorted(Path(temporary).iterdir()):
            files[file.name] = (file.stat().st_size, file_sha256(file))
            fsync(file)
            file.rename(folder / file.name)
        sealed = {"format_version": FORMAT_VERSION, "settings": settings, "files": files, **values}
        try:
            write_sealed(folder / f"{name}.json", sealed)
        except FileNotFoundError:  # another launch has written it at the same moment
            if not (folder / f"{name}.json").is_file():
                raise
    path.unlink(missing_ok=True)


def _plan_of(folder: Path, name: str) -> Path:
    return folder / f".plan-{name}.npy"


def _clear_away(folder: Path) -> None:
    """What processes were writing that were killed some time ago."""
    for path in (*folder.glob(".tmp-*"), *folder.glob(".plan-*")):
        try:
            is_old = time.time() - path.stat().st_mtime > LEFT_BEHIND
        except FileNotFoundError:
            continue
        if is_old and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif is_old:
            path.unlink(missing_ok=True)
