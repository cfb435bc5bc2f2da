"""Which files of a folder are its images, of which class, on which side of a split."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError, some_of
from vaekit.images.reading import Tally, tallied
from vaekit.images.walk import Walk, layouts

TRAIN, VALIDATION, TEST = 0, 1, 2
UNSPLIT = -1  # vaekit itself is to choose
_NOT_USED = -2

_SIDES = {
    **dict.fromkeys(("train", "training", "trn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "tst"), TEST),
}
_FILLERS = {"set", "data", "dataset", "split", "images", "image", "imgs", "img", "seg", "folder"}
_JOINED = re.compile(rf"({'|'.join(_SIDES)})(set|data|images)")
_BESIDE, _EMPTY = "beside the folders of the split", "folders without images"
_FIRST_SIDES = {"train": TRAIN, "test": TEST}  # those of the first version, to the letter


class Arrangement(NamedTuple):
    """Which of N image files are used, and as what."""

    class_names: tuple[str, ...]  # () for an unlabelled folder
    used: NDArray[np.int64]  # [M], their indices, sorted
    labels: NDArray[np.int64]  # [M], all 0 in an unlabelled folder
    sides: NDArray[np.int8]  # [M], all `UNSPLIT` where the folder is not split
    layout: tuple[str, ...]  # what was understood otherwise than to the letter
    left_out: tuple[Tally, ...]


def arrange(found: Walk, images: NDArray[np.int64], *, by_suffix: bool) -> Arrangement:
    """The classes and sides of the `images` [N] among the files that were found.

    Raises `UserError` for a folder in none of the layouts.
    """
    tree = _Tree(found, images)
    if not len(images):
        raise UserError(f"{found.root}: no images; {layouts(found.root)}")
    layout: list[str] = []
    base = found.root if by_suffix else _enter_lone_folders(tree, layout)
    sides = _sides_of(tree, base, by_suffix, layout)
    if not sides:
        if not by_suffix:
            _require_no_split_within_classes(tree, base)
        sides = {base: UNSPLIT}
    scans = [
        _scan(tree, folder if by_suffix else _enter_again(tree, folder, layout), side)
        for folder, side in sides.items()
    ]
    class_names = _common_classes(found.root, scans)
    label_of = np.zeros(len(found.folders), np.int64)
    side_of_folder = np.full(len(found.folders), _NOT_USED, np.int8)
    for scan in scans:
        for folder, name in scan.members:
            label_of[folder] = class_names.index(name) if class_names else 0
            side_of_folder[folder] = scan.side
    folder_of = found.folder_of[images]
    sides_of_images = side_of_folder[folder_of]
    used = np.flatnonzero(sides_of_images != _NOT_USED)
    not_used = images[sides_of_images == _NOT_USED].tolist()
    beside = tallied(((index, [_BESIDE]) for index in not_used), found.name)
    empty = tallied(
        (f"{tree.name(folder)}/", [_EMPTY])
        for folder in found.folders
        if folder not in tree.inhabited and folder.parent in tree.inhabited
    )
    return Arrangement(
        class_names,
        used,
        label_of[folder_of[used]],
        sides_of_images[used],
        tuple(layout),
        (*beside, *empty),
    )


class _Tree:
    """The folders with images below them."""

    def __init__(self, found: Walk, images: NDArray[np.int64]) -> None:
        self.root, self._found, self._images = found.root, found, images
        self._number = {folder: number for number, folder in enumerate(found.folders)}
        counts = np.bincount(found.folder_of[images], minlength=len(found.folders)).tolist()
        # Those that images lie right in.
        self.loose = {folder for folder, count in zip(found.folders, counts, strict=True) if count}
        self.inhabited: set[Path] = set()
        for lowest in self.loose:
            folder = lowest
            while folder not in self.inhabited:
                self.inhabited.add(folder)
                if folder == self.root:
                    break
                folder = folder.parent
        self._inside: dict[Path, list[Path]] = {}
        for folder in found.folders[1:]:
            self._inside.setdefault(folder.parent, []).append(folder)

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def folders_in(self, folder: Path) -> list[Path]:
        return self._inside.get(folder, [])

    def inhabited_in(self, folder: Path) -> list[Path]:
        """Those with images below them, in order of their names."""
        return [each for each in self.folders_in(folder) if each in self.inhabited]

    def from_here_on(self, folder: Path) -> list[int]:
        """The places of `folder` and of all folders below it."""
        below = [place for each in self.folders_in(folder) for place in self.from_here_on(each)]
        return [self._number[folder], *below]

    def loose_names(self, folder: Path) -> list[str]:
        """Of the images that lie right in `folder`."""
        here = self._found.folder_of[self._images] == self._number[folder]
        return [self._found.names[index] for index in self._images[here].tolist()]


class _Scan(NamedTuple):
    folder: Path
    side: int
    class_names: tuple[str, ...]
    members: list[tuple[int, str]]  # the place of a folder, and its class ("" without classes)


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


def _require_no_split_within_classes(tree: _Tree, base: Path) -> None:
    for folder in tree.inhabited_in(base):
        sides = {side_of(each.name): each.name for each in tree.inhabited_in(folder)}
        if TRAIN in sides and (TEST in sides or VALIDATION in sides):
            raise UserError(
                f"{folder}: {some_of([f'{name}/' for name in sides.values()])} within a class; put "
                f"the split above the classes; {layouts(base)}"
            )


def _scan(tree: _Tree, folder: Path, side: int) -> _Scan:
    """What lies in `folder`: classes, or images without."""
    class_folders = tree.inhabited_in(folder)
    if not class_folders:
        return _Scan(folder, side, (), [(place, "") for place in tree.from_here_on(folder)])
    if folder in tree.loose:
        raise UserError(
            f"{folder}: {some_of(tree.loose_names(folder))} beside class folders; "
            f"put each image into the folder of its class"
        )
    class_names = tuple(each.name for each in class_folders)
    unreadable = [name for name in class_names if not _is_utf8(name)]
    if unreadable:
        raise UserError(
            f"{folder}: {some_of(unreadable)}, the name of a class, is not UTF-8; rename the folder"
        )
    members = [(place, each.name) for each in class_folders for place in tree.from_here_on(each)]
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


def _is_utf8(name: str) -> bool:
    return os.fsencode(name).decode(errors="replace") == name
