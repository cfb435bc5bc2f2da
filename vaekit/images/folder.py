"""Which files of a folder are its images, of which class, to train on or to test on."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError, some_of
from vaekit.images.splits import FIXED_SEED, split

EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm",
)  # fmt: skip


class Listing(NamedTuple):
    """The image files of a folder, those to train on first."""

    root: Path
    class_names: tuple[str, ...]  # () for an unlabelled folder
    paths: list[Path]
    labels: NDArray[np.int64]  # [N], all 0 in an unlabelled folder
    num_train: int


class _Files(NamedTuple):
    """Image files and their classes."""

    class_names: tuple[str, ...]
    paths: list[Path]
    labels: NDArray[np.int64]

    def take(self, indices: NDArray[np.int64]) -> "_Files":
        paths = [self.paths[i] for i in indices]
        return _Files(self.class_names, paths, self.labels[indices])

    def shuffled(self) -> "_Files":
        return self.take(np.random.default_rng(FIXED_SEED).permutation(len(self.paths)))


def list_folder(root: Path, seed: int) -> Listing:
    """The images under `root`, in one fixed shuffled order.

    `seed` chooses the tenth to test on where there is no train/ and test/. Raises `UserError` for
    a folder in none of the layouts.
    """
    if not root.is_dir():
        raise UserError(f"--data.root {root}: no such folder; {_layouts(root)}")
    if (root / "train").is_dir() or (root / "test").is_dir():
        train, test = _train_and_test(root)
    else:
        train, test = _split_tree(root, seed)
    train, test = train.shuffled(), test.shuffled()
    labels = np.concatenate([train.labels, test.labels])
    return Listing(root, train.class_names, train.paths + test.paths, labels, len(train.paths))


def _train_and_test(root: Path) -> tuple[_Files, _Files]:
    """The files of train/ and of test/."""
    train_root, test_root = root / "train", root / "test"
    for folder in (train_root, test_root):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; {_layouts(root)}")
    train, test = _scan(train_root, root), _scan(test_root, root)
    if bool(train.class_names) != bool(test.class_names):
        raise UserError(
            f"--data.root {root}: one of train and test has class folders, the other only images; "
            f"{_layouts(root)}"
        )
    unknown = sorted(set(test.class_names) - set(train.class_names))
    if unknown:
        raise UserError(
            f"{test_root}: {some_of(unknown)} not among the classes of {train_root}; "
            f"each class needs training images"
        )
    if not train.class_names:
        return train, test
    in_train = np.array([train.class_names.index(name) for name in test.class_names], np.int64)
    return train, _Files(train.class_names, test.paths, in_train[test.labels])


def _split_tree(root: Path, seed: int) -> tuple[_Files, _Files]:
    """One tree of files, a tenth of it held out for the test set."""
    files = _scan(root, root)
    num_files = len(files.paths)
    if num_files < 2:
        raise UserError(
            f"--data.root {root}: one image can't be split into a training and a test set; "
            f"add images"
        )
    kept, held_out = split(files.labels, max(1, round(0.1 * num_files)), seed)
    return files.take(kept), files.take(held_out)


def _scan(folder: Path, root: Path) -> _Files:
    """What lies in `folder`, in sorted order; without classes if it is images."""
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    class_folders = [path for path in visible if path.is_dir()]
    loose = [path for path in visible if _is_image_name(path.name) and not path.is_dir()]
    if not class_folders and not loose:
        raise UserError(f"{folder}: no images; {_layouts(root)}")
    if not class_folders:
        return _Files((), loose, np.zeros(len(loose), np.int64))
    if loose:
        raise UserError(
            f"{folder}: {some_of([path.name for path in loose])} beside class folders; "
            f"put each image into the folder of its class"
        )
    paths, labels = [], []
    for label, class_folder in enumerate(class_folders):
        found = _images_under(class_folder)
        if not found:
            raise UserError(f"{class_folder}: no images in this class; {_layouts(root)}")
        paths += found
        labels += [label] * len(found)
    class_names = tuple(path.name for path in class_folders)
    unreadable = [name for name in class_names if not _is_utf8(name)]
    if unreadable:
        raise UserError(
            f"{folder}: {some_of(unreadable)}, the name of a class, is not UTF-8; rename the folder"
        )
    return _Files(class_names, paths, np.array(labels, np.int64))


def _images_under(folder: Path) -> list[Path]:
    found = []
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if _is_image_name(name)]
    return sorted(found)


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(EXTENSIONS)


def _is_utf8(name: str) -> bool:
    return os.fsencode(name).decode(errors="replace") == name


def _layouts(root: Path) -> str:
    return (
        f"expected {root}/train/CLASS/*.png and {root}/test/CLASS/*.png, or {root}/CLASS/*.png, "
        f"or without classes {root}/train/*.png and {root}/test/*.png, or {root}/*.png "
        f"({', '.join(EXTENSIONS)})"
    )
