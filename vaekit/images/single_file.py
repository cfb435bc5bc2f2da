"""The cache of before: a folder's images in one file, which is read and no longer written."""

import hashlib
import json
from pathlib import Path

import numpy as np

from vaekit.config import DataConfig
from vaekit.images.collect import FolderImages, page_names
from vaekit.images.preparation import RESIZE_FILTER
from vaekit.images.reading import reading_from_dict
from vaekit.images.settled import in_pixels, read_settled
from vaekit.images.walk import CACHE_FOLDER, Walk
from vaekit.storage.damage import Damaged, as_written, strings, typed
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import read_sealed

CACHE_FORMAT_VERSION = 3

_PIXELS, _ROWS, _META = "pixels.npy", "rows.npy", "meta.json"


def read_single_file(found: Walk, data: DataConfig, seed: int) -> FolderImages | None:
    """The images of a folder from the cache of before; None where they are not there, and whole."""
    cache = found.root / CACHE_FOLDER
    names = _names(found)
    settled = read_settled(cache / f"{_key(names, data)}.json", data, CACHE_FORMAT_VERSION)
    if settled is None:
        return None
    key = _key(names, settled.data, seed if settled.is_split else None)
    return _read_entry(cache / key, settled.data, found)


def _names(found: Walk) -> str:
    """A hash of the names, sizes and times of all files."""
    digest = hashlib.sha256(json.dumps([CACHE_FORMAT_VERSION, RESIZE_FILTER]).encode())
    for index, columns in enumerate(zip(found.sizes.tolist(), found.times.tolist(), strict=True)):
        digest.update(json.dumps([found.name(index), *columns]).encode())
    left_out = [*found.left_out]
    digest.update(json.dumps([left_out, [str(each) for each in found.folders]]).encode())
    return digest.hexdigest()


def _key(names: str, data: DataConfig, seed: int | None = None) -> str:
    return hashlib.sha256(json.dumps([names, in_pixels(data), seed]).encode()).hexdigest()[:32]


def _read_entry(entry: Path, data: DataConfig, found: Walk) -> FolderImages | None:
    """What was kept; None where nothing is or it is damaged."""
    try:
        meta = read_sealed(entry / _META, version=CACHE_FORMAT_VERSION)
        with as_written():
            files = {name: typed(meta["files"][name], str) for name in (_PIXELS, _ROWS)}
            if any(file_sha256(entry / name) != sha256 for name, sha256 in files.items()):
                return None
            train, validation, test = (typed(number, int) for number in meta["num_on_side"])
            class_names = strings(meta["class_names"])
            labels, files, pages = np.load(entry / _ROWS).T
            return FolderImages(
                class_names,
                np.load(entry / _PIXELS, mmap_mode="c"),
                np.ascontiguousarray(labels) if class_names else None,
                page_names(found, files, pages),
                (train, validation, test),
                data,
                reading_from_dict(meta["reading"]),
            )
    except (OSError, ValueError, Damaged):
        return None
