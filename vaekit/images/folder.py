"""Which files of a folder are its images, of which class, on which side of a split."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError, some_of

CACHE_FOLDER = ".vaekit-cache"

TRAIN, VALIDATION, TEST = 0, 1, 2
UNSPLIT = -1  # vaekit itself is to choose

_SIDES = {
    **dict.fromkeys(("train", "training", "trn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "tst"), TEST),
}
_FILLERS = {"set", "data", "dataset", "split", "images", "image", "imgs", "img", "seg", "folder"}
_JOINED = re.compile(
    r"(train|training|trn|val|valid|validation|dev|test|testing|tst)(set|data|images)"
)
_FIRST_SIDES = {"train": TRAIN, "test": TEST}  # those of the first version, to the letter
_OF_SYSTEMS = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "lost+found", "@eadir"}
_OF_A_RUN = ("config.yaml", "environment.json", "metrics.jsonl")


class Walk(NamedTuple):
    """The files of a folder, in order of their paths."""

    root: Path
    files: list[Path]
    folders: list[Path]  # all that were entered, the root first
    left_out: list[tuple[str, str]]  # the reason, and the name of what was not entered or looked at


class Arrangement(NamedTuple):
    """Which of N image files are used, and as what."""

    class_names: tuple[str, ...]  # () for an unlabelled folder
    used: NDArray[np.int64]  # [M], their indices, sorted
    labels: NDArray[np.int64]  # [M], all 0 in an unlabelled folder
    sides: NDArray[np.int64]  # [M], all `UNSPLIT` where the folder is not split
    layout: tuple[str, ...]  # what was understood otherwise than to the letter
    left_out: list[tuple[str, str]]


def walk(root: Path, *, by_suffix: bool) -> Walk:
    """All files under `root` but hidden ones and those of operating systems.

    Links are followed, and those back to a folder above are left out. `by_suffix` is how the first
    version went: no link below the folder of a class.
    """
    files: list[Path] = []
    folders: list[Path] = []
    left_out: list[tuple[str, str]] = []
    for entered in _enter(root, by_suffix):
        folders.append(entered.path)
        files += [Path(file.path) for file in entered.files]
        left_out += entered.left_out
    left_out.sort(key=lambda each: each[1].removesuffix("/").split("/"))
    return Walk(root, sorted(files), folders, left_out)


def signature(root: Path, *, by_suffix: bool) -> str:
    """A hash of the names, sizes and times of all files that `walk` finds, and of what it leaves.

    Nothing is held of more than one folder.
    """
    digest = hashlib.sha256()
    for entered in _enter(root, by_suffix):
        lines = sorted(map(_line, entered.files))
        name = os.fsencode(entered.path.relative_to(root))
        digest.update(b"%d %d %s\n" % (len(lines), len(entered.left_out), name))
        digest.update("\n".join(lines).encode(errors="surrogateescape"))
        digest.update(repr(entered.left_out).encode(errors="surrogateescape"))
    return digest.hexdigest()


class _Entered(NamedTuple):
    path: Path
    files: list[os.DirEntry[str]]  # in no order
    left_out: list[tuple[str, str]]


def _line(file: os.DirEntry[str]) -> str:
    try:
        status = file.stat()
    except OSError:  # a dangling link
        status = file.stat(follow_symlinks=False)
    return f"{file.name}/{status.st_size}/{status.st_mtime_ns}"


def _enter(root: Path, by_suffix: bool) -> Iterator[_Entered]:
    """Every folder that is looked into, from `root` on, in order of their paths."""
    if not root.is_dir():
        raise UserError(f"--data.root {root}: no such folder; {layouts(root)}")

    def enter(folder: Path, above: tuple[Path, ...]) -> Iterator[_Entered]:
        here = (*above, folder.resolve())
        files: list[os.DirEntry[str]] = []
        folders: list[Path] = []
        left_out: list[tuple[str, str]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or name.lower() in _OF_SYSTEMS:
                    if name != CACHE_FOLDER or folder != root:
                        left_out.append((_why_hidden(name), name))
                elif (Path(entry.path) if entry.is_symlink() else entry).is_dir():
                    path = folder / name
                    why = _why_not_entered(path, root, here, by_suffix)
                    if why is None:
                        folders.append(path)
                    else:
                        is_run = why == _IS_RUN
                        left_out.append((why, f"{name}/" if is_run else name))
                else:
                    files.append(entry)
        above_names = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        shown = [(why, above_names + name) for why, name in left_out]
        yield _Entered(folder, files, sorted(shown))
        for path in sorted(folders):
            yield from enter(path, here)

    return enter(root, ())


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


def arrange(found: Walk, images: Sequence[Path], *, by_suffix: bool) -> Arrangement:
    """The classes and sides of the `images` among the files that were found.

    Raises `UserError` for a folder in none of the layouts.
    """
    tree = _Tree(found.root, images, found.folders)
    if not images:
        raise UserError(f"{found.root}: no images; {layouts(found.root)}")
    layout: list[str] = []
    base = found.root if by_suffix else _enter_lone_folders(tree, layout)
    sides = _sides_of(tree, base, by_suffix, layout)
    if not sides:
        _require_no_split_within_classes(tree, base, by_suffix)
        sides = {base: UNSPLIT}
    bases = (
        {folder: _enter_again(tree, folder, layout) for folder in sides} if not by_suffix else {}
    )
    scans = [_scan(tree, bases.get(folder, folder), side) for folder, side in sides.items()]
    class_names = _common_classes(found.root, scans)
    rows = sorted(
        (index, class_names.index(name) if class_names else 0, scan.side)
        for scan in scans
        for index, name in scan.members
    )
    table = np.array(rows, np.int64).reshape(-1, 3)
    used = {index for index, _, _ in rows}
    beside = [
        ("beside the folders of the split", tree.name(path))
        for index, path in enumerate(images)
        if index not in used
    ]
    empty = [
        ("folders without images", f"{tree.name(folder)}/")
        for folder in found.folders
        if folder not in tree.inhabited and folder.parent in tree.inhabited
    ]
    return Arrangement(
        class_names, table[:, 0], table[:, 1], table[:, 2], tuple(layout), [*beside, *empty]
    )


class _Tree:
    """The folders with images below them."""

    def __init__(self, root: Path, images: Sequence[Path], folders: Iterable[Path]) -> None:
        self.root, self.images = root, images
        self.inhabited: set[Path] = set()
        self.loose: dict[Path, list[int]] = {}  # the images that lie right in a folder
        for index, path in enumerate(images):
            self.loose.setdefault(path.parent, []).append(index)
            folder = path.parent
            while folder not in self.inhabited:
                self.inhabited.add(folder)
                if folder == root:
                    break
                folder = folder.parent
        self._inside: dict[Path, list[Path]] = {}
        for folder in folders:
            if folder != root:
                self._inside.setdefault(folder.parent, []).append(folder)

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def folders_in(self, folder: Path) -> list[Path]:
        return self._inside.get(folder, [])

    def inhabited_in(self, folder: Path) -> list[Path]:
        """Those with images below them, in order of their names."""
        return [each for each in self.folders_in(folder) if each in self.inhabited]

    def below(self, folder: Path) -> list[int]:
        """All images below `folder`, in order of their paths."""
        found = list(self.loose.get(folder, ()))
        for each in self.folders_in(folder):
            found += self.below(each)
        return sorted(found)


class _Scan(NamedTuple):
    folder: Path
    side: int
    class_names: tuple[str, ...]
    members: list[tuple[int, str]]  # the index of an image, and its class ("" without classes)


def _enter_lone_folders(tree: _Tree, layout: list[str]) -> Path:
    """Past each folder that is alone and holds nothing but folders."""
    folder = tree.root
    while (lone := _lone_folder(tree, folder)) and side_of(lone.name) is None:
        layout.append(
            f"{tree.name(lone)}/ is the only folder with images and holds folders: it was entered, "
            f"and is no class"
        )
        folder = lone
    return folder


def _enter_again(tree: _Tree, folder: Path, layout: list[str]) -> Path:
    """As train/train/CLASS, or train/images/CLASS."""
    while lone := _lone_folder(tree, folder):
        if lone.name.lower() not in _FILLERS and side_of(lone.name) is None:
            break
        layout.append(f"{tree.name(lone)}/ is the only folder with images in its place: entered")
        folder = lone
    return folder


def _lone_folder(tree: _Tree, folder: Path) -> Path | None:
    inside = tree.inhabited_in(folder)
    if len(inside) != 1 or folder in tree.loose or inside[0] in tree.loose:
        return None
    return inside[0]


def side_of(name: str) -> int | None:
    """The side of a split that a folder of this name holds, as Train, val2017 or test_set."""
    tokens = [each for each in re.split(r"[^a-z]+", name.lower()) if each]
    tokens = [part for each in tokens for part in _split_joined(each)]
    sides = {_SIDES[each] for each in tokens if each in _SIDES}
    if len(sides) != 1 or any(each not in _SIDES and each not in _FILLERS for each in tokens):
        return None
    return sides.pop()


def _split_joined(token: str) -> tuple[str, ...]:
    match = _JOINED.fullmatch(token)
    return match.groups() if match else (token,)


def _sides_of(tree: _Tree, base: Path, by_suffix: bool, layout: list[str]) -> dict[Path, int]:
    """The folders of a split in `base`, the training set first; none where there is no split."""
    if by_suffix:
        named = {f: _FIRST_SIDES[f.name] for f in tree.folders_in(base) if f.name in _FIRST_SIDES}
    else:
        named = {f: side for f in tree.folders_in(base) if (side := side_of(f.name)) is not None}
    if not named:
        return {}
    by_side: dict[int, list[Path]] = {}
    for folder, side in named.items():
        by_side.setdefault(side, []).append(folder)
    for several in by_side.values():
        if len(several) > 1:
            raise UserError(
                f"--data.root {tree.root}: {some_of([f'{f.name}/' for f in several])} name the "
                f"same side of a split; keep one, or put all of it into one"
            )
    names = {side: folders[0] for side, folders in by_side.items()}
    others = [f"{f.name}/" for f in tree.inhabited_in(base) if f not in named]
    if len(names) == 1 and others and not by_suffix:
        (alone,) = names.values()
        raise UserError(
            f"--data.root {tree.root}: {alone.name}/ is a side of a split by its name, and beside "
            f"it are {some_of(others)} and no other side; rename it if it is a class; "
            f"{layouts(base)}"
        )
    for side, name in ((TRAIN, "train"), (TEST, "test")):
        if side not in names and not (side == TEST and VALIDATION in names):
            raise UserError(f"{base / name}: no such folder; {layouts(base)}")
    for side, folder in tuple(names.items()):
        if folder not in tree.inhabited:
            if side == VALIDATION and len(names) > 2:
                layout.append(f"{folder.name}/ holds no images: there is no validation set")
                del names[side]
                continue
            raise UserError(f"{folder}: no images; {layouts(base)}")
    if TEST not in names:
        layout.append(
            f"{names[VALIDATION].name}/ is the set to test on, since there is no test/ beside it"
        )
        return {names[TRAIN]: TRAIN, names[VALIDATION]: TEST}
    return {names[side]: side for side in sorted(names)}


def _require_no_split_within_classes(tree: _Tree, base: Path, by_suffix: bool) -> None:
    if by_suffix:
        return
    for folder in tree.inhabited_in(base):
        sides = {side_of(each.name): each.name for each in tree.inhabited_in(folder)}
        if TRAIN in sides and (TEST in sides or VALIDATION in sides):
            raise UserError(
                f"{folder}: {some_of([f'{name}/' for name in sides.values()])} within a class; put "
                f"the split above the classes; {layouts(base)}"
            )


def _scan(tree: _Tree, folder: Path, side: int) -> _Scan:
    """What lies in `folder`: classes, or images without."""
    loose, class_folders = tree.loose.get(folder, []), tree.inhabited_in(folder)
    if not class_folders:
        return _Scan(folder, side, (), [(index, "") for index in loose])
    if loose:
        raise UserError(
            f"{folder}: {some_of([tree.images[i].name for i in loose])} beside class folders; "
            f"put each image into the folder of its class"
        )
    class_names = tuple(each.name for each in class_folders)
    unreadable = [name for name in class_names if not _is_utf8(name)]
    if unreadable:
        raise UserError(
            f"{folder}: {some_of(unreadable)}, the name of a class, is not UTF-8; rename the folder"
        )
    members = [(index, each.name) for each in class_folders for index in tree.below(each)]
    return _Scan(folder, side, class_names, members)


def _common_classes(root: Path, scans: Sequence[_Scan]) -> tuple[str, ...]:
    """The classes of the training set, to which those of every other side must belong."""
    train, *others = scans
    for each in others:
        if bool(train.class_names) != bool(each.class_names):
            raise UserError(
                f"--data.root {root}: one of {train.folder.name} and {each.folder.name} has class "
                f"folders, the other only images; {layouts(root)}"
            )
        if unknown := sorted(set(each.class_names) - set(train.class_names)):
            raise UserError(
                f"{each.folder}: {some_of(unknown)} not among the classes of {train.folder}; "
                f"each class needs training images"
            )
    return train.class_names


def _is_class(path: Path, root: Path) -> bool:
    """Whether the first version took `path` for the folder of a class, or of a side."""
    parts = path.relative_to(root).parts
    return len(parts) == 1 or (len(parts) == 2 and parts[0] in _FIRST_SIDES)


def _is_utf8(name: str) -> bool:
    return os.fsencode(name).decode(errors="replace") == name


def layouts(root: Path) -> str:
    return (
        f"expected {root}/train/CLASS/*.png and {root}/test/CLASS/*.png, or {root}/CLASS/*.png, "
        f"or without classes {root}/train/*.png and {root}/test/*.png, or {root}/*.png"
    )
