"""The files below a folder, in order of their paths."""

import hashlib
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.images.names import Names, encoded

CACHE_FOLDER = ".vaekit-cache"

_OF_SYSTEMS = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "lost+found", "@eadir"}
_OF_A_RUN = ("config.yaml", "environment.json", "metrics.jsonl")
_FIRST_SIDES = ("train", "test")  # as folders of the first version were named
_AT_ONCE = 65_536  # files of a folder that are objects at a time


@dataclass(frozen=True)
class LeftOut:
    """What was not entered or looked at, and why."""

    reasons: list[str] = field(default_factory=list)
    names: Names = field(default_factory=Names)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return zip(self.reasons, self.names, strict=True)


@dataclass(frozen=True)
class Walk:
    """The files of a folder, in order of their paths: some thirty bytes each, and its name."""

    root: Path
    folders: list[Path]  # all that were entered, the root first, each before those in it
    names: Names  # [N], of the files in their folders
    folder_of: NDArray[np.int32]  # [N], where each lies: its place among `folders`
    sizes: NDArray[np.int64]  # [N]
    times: NDArray[np.int64]  # [N], of the last change, in nanoseconds
    left_out: LeftOut

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """Of a file, relative to the root, with slashes."""
        return f"{self.prefixes[self.folder_of[index]]}{self.names[index]}"

    def path(self, index: int) -> Path:
        return self.root / self.name(index)

    @cached_property
    def prefixes(self) -> list[str]:
        """What stands before the names of files: of each folder, with a slash."""
        names = [folder.relative_to(self.root).as_posix() for folder in self.folders]
        return ["" if name == "." else f"{name}/" for name in names]

    def signature(self) -> str:
        """A hash of the names, sizes and times of all files, and of what was left out."""
        digest = hashlib.sha256()
        for names in (self.names, Names(self.prefixes), self.left_out.names):
            for column in names.columns():
                digest.update(len(column).to_bytes(8))
                digest.update(column)
        for numbers in (self.folder_of, self.sizes, self.times):
            digest.update(numbers.data)
        digest.update("\n".join(self.left_out.reasons).encode())
        return digest.hexdigest()


def walk(root: Path, *, by_suffix: bool) -> Walk:
    """All files under `root` but hidden ones and those of operating systems.

    Links are followed, and those back to a folder above are left out. `by_suffix` is how the first
    version went: no link below the folder of a class. Raises `UserError` where there is no folder.
    """
    if not root.is_dir():
        raise UserError(f"--data.root {root}: no such folder; {layouts(root)}")
    folders: list[Path] = []
    names, left_out = Names(), LeftOut()
    folder_of, sizes, times = array("i"), array("q"), array("q")

    def enter(folder: Path, above: tuple[Path, ...]) -> None:
        here = (*above, folder.resolve())
        number = len(folders)
        folders.append(folder)
        prefix = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        listed = _list(folder, root, here, by_suffix)
        others = np.array([encoded(name) for name, _ in listed.others], np.bytes_)
        before = np.searchsorted(listed.names, others).tolist()
        taken = 0
        for place, (name, why) in zip(before, listed.others, strict=True):
            take(listed, number, slice(taken, place))
            taken = place
            if why is None:
                enter(folder / name, here)
            else:
                left_out.reasons.append(why)
                left_out.names.append(f"{prefix}{name}{'/' if why == _IS_RUN else ''}")
        take(listed, number, slice(taken, None))

    def take(listed: _Listed, folder: int, which: slice) -> None:
        some = listed.names[which]
        names.extend(some)
        folder_of.frombytes(np.full(len(some), folder, np.int32).tobytes())
        sizes.frombytes(listed.sizes[which].tobytes())
        times.frombytes(listed.times[which].tobytes())

    enter(root, ())
    return Walk(
        root,
        folders,
        names,
        np.frombuffer(folder_of, np.int32),
        np.frombuffer(sizes, np.int64),
        np.frombuffer(times, np.int64),
        left_out,
    )


class _Listed(NamedTuple):
    """A folder by itself, in order of the names."""

    names: NDArray[np.bytes_]  # [n], of its files, as `encoded` makes them
    sizes: NDArray[np.int64]  # [n]
    times: NDArray[np.int64]  # [n]
    others: list[tuple[str, str | None]]  # folders, and with the reason what is left out


def _list(folder: Path, root: Path, above: tuple[Path, ...], by_suffix: bool) -> _Listed:
    names: list[bytes] = []
    chunks = [np.zeros(0, np.bytes_)]
    sizes, times = array("q"), array("q")
    others: list[tuple[str, str | None]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name.lower() in _OF_SYSTEMS:
                if name != CACHE_FOLDER or folder != root:
                    others.append((name, _why_hidden(name)))
            elif not entry.is_file(follow_symlinks=False) and (folder / name).is_dir():
                others.append((name, _why_not_entered(folder / name, root, above, by_suffix)))
            else:
                try:
                    status = entry.stat()
                except OSError:  # a dangling link
                    status = entry.stat(follow_symlinks=False)
                names.append(encoded(name))
                sizes.append(status.st_size)
                times.append(status.st_mtime_ns)
                if len(names) == _AT_ONCE:
                    chunks.append(np.array(names))
                    names = []
    listed = np.concatenate([*chunks, np.array(names, np.bytes_)])
    order = np.argsort(listed)
    return _Listed(
        listed[order],
        np.frombuffer(sizes, np.int64)[order],
        np.frombuffer(times, np.int64)[order],
        sorted(others),
    )


_IS_RUN = "runs of vaekit"


def _why_hidden(name: str) -> str:
    is_of_system = name.lower() in _OF_SYSTEMS or name == ".DS_Store"
    return "of an operating system or an archiver" if is_of_system else "hidden"


def _why_not_entered(
    path: Path, root: Path, above: tuple[Path, ...], by_suffix: bool
) -> str | None:
    if not by_suffix and all((path / each).is_file() for each in _OF_A_RUN):
        return _IS_RUN
    if path.resolve() in above:
        return "links back to a folder above them"
    if by_suffix and path.is_symlink() and not _is_class(path, root):
        return "linked folders"
    return None


def _is_class(path: Path, root: Path) -> bool:
    """Whether the first version took `path` for the folder of a class, or of a side."""
    parts = path.relative_to(root).parts
    return len(parts) == 1 or (len(parts) == 2 and parts[0] in _FIRST_SIDES)


def layouts(root: Path) -> str:
    return (
        f"expected {root}/train/CLASS/*.png and {root}/test/CLASS/*.png, or {root}/CLASS/*.png, "
        f"or without classes {root}/train/*.png and {root}/test/*.png, or {root}/*.png"
    )
