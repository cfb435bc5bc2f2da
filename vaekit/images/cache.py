"""The images of a folder as one array, decoded once and kept beside them."""

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from vaekit.config import DataConfig
from vaekit.errors import say
from vaekit.images.collect import Collected, collect, page_name
from vaekit.images.folder import CACHE_FOLDER, Walk, walk
from vaekit.images.preparation import RESIZE_FILTER
from vaekit.images.reading import Reading, reading_from_dict, reading_to_dict
from vaekit.storage.damage import Damaged, as_written, strings, typed
from vaekit.storage.files import file_sha256, reserve, user_path
from vaekit.storage.sealed import read_sealed, write_sealed

CACHE_FORMAT_VERSION = 3

_PIXELS, _ROWS, _META = "pixels.npy", "rows.npy", "meta.json"
# What settles before the images are read: all of it, and nothing else, is in the keys.
_IN_PIXELS = (
    "image_size", "fit", "background", "channels", "value_range", "pages", "reading",
    "skip_unreadable",
)  # fmt: skip
_SETTLED = ("background", "value_range")


class FolderImages(NamedTuple):
    """The images of a folder: those to train on, to validate on, to test on."""

    class_names: tuple[str, ...]  # () for an unlabelled folder
    pixels: NDArray[np.uint8]  # [N, C, H, W]; may be a memory map
    labels: NDArray[np.int64] | None  # [N]
    files: tuple[str, ...]  # [N], relative to the folder; of a later page with its number
    num_on_side: tuple[int, int, int]
    data: DataConfig  # with what the files settled
    reading: Reading


class _Choice(NamedTuple):
    """What the files settled, without which an entry can't be found."""

    data: DataConfig
    is_split: bool  # whether the entry depends on the seed


def read_folder(data: DataConfig, seed: int) -> FolderImages:
    """A folder of image files, from the cache where the same files were decoded before.

    `seed` splits a folder that has no train/ and test/. Raises `UserError` for a folder in none of
    the layouts, and for unreadable files that are not to be skipped.
    """
    if data.reading == "auto":
        data = replace(data, reading="content")
    found = walk(user_path("--data.root", data.root), by_suffix=data.reading == "suffix")
    cache = found.root / CACHE_FOLDER
    names = _names(found)
    choice = _read_choice(cache, _key(names, data), data)
    images = choice and _read_entry(cache / _entry_key(names, choice, seed), choice.data, found)
    if images is None:
        say(f"decoding the images of {found.root}")
        images = _decode_into_cache(found, names, data, seed, cache)
        say(f"decoded {len(images.pixels)} images into shape {images.pixels.shape[1:]}")
    return images


def _names(found: Walk) -> str:
    """A hash of the names, sizes and times of all files."""
    digest = hashlib.sha256(json.dumps([CACHE_FORMAT_VERSION, RESIZE_FILTER]).encode())
    for path in found.files:
        try:
            status = path.stat()
        except OSError:  # a dangling link
            status = path.lstat()
        name = path.relative_to(found.root).as_posix()
        digest.update(json.dumps([name, status.st_size, status.st_mtime_ns]).encode())
    digest.update(json.dumps([found.left_out, [str(each) for each in found.folders]]).encode())
    return digest.hexdigest()


def _key(names: str, data: DataConfig, seed: int | None = None) -> str:
    settings = {name: value for name, value in asdict(data).items() if name in _IN_PIXELS}
    return hashlib.sha256(json.dumps([names, settings, seed]).encode()).hexdigest()[:32]


def _entry_key(names: str, choice: _Choice, seed: int) -> str:
    return _key(names, choice.data, seed if choice.is_split else None)


def _read_choice(cache: Path, key: str, data: DataConfig) -> _Choice | None:
    """What `_write_choice` kept; None where nothing is or it is damaged."""
    try:
        values = read_sealed(cache / f"{key}.json", version=CACHE_FORMAT_VERSION)
        with as_written():
            background, value_range = (typed(values[name], str) for name in _SETTLED)
            settled = replace(data, background=background, value_range=value_range)
            return _Choice(settled, typed(values["is_split"], bool))
    except (OSError, Damaged):
        return None


def _write_choice(cache: Path, key: str, choice: _Choice) -> None:
    settled = {name: getattr(choice.data, name) for name in _SETTLED}
    values = {"format_version": CACHE_FORMAT_VERSION, **settled, "is_split": choice.is_split}
    write_sealed(cache / f"{key}.json", values)


def _read_entry(entry: Path, data: DataConfig, found: Walk) -> FolderImages | None:
    """What `_fill_cache` kept; None where nothing is or it is damaged."""
    try:
        meta = read_sealed(entry / _META, version=CACHE_FORMAT_VERSION)
        with as_written():
            files = {name: typed(meta["files"][name], str) for name in (_PIXELS, _ROWS)}
            if any(file_sha256(entry / name) != sha256 for name, sha256 in files.items()):
                return None
            return _open_entry(entry, meta, data, found)
    except (OSError, ValueError, Damaged):
        return None


def _open_entry(entry: Path, meta: dict[str, Any], data: DataConfig, found: Walk) -> FolderImages:
    train, validation, test = (typed(number, int) for number in meta["num_on_side"])
    return _folder_images(
        Collected(
            strings(meta["class_names"]),
            np.load(entry / _PIXELS, mmap_mode="c"),
            np.load(entry / _ROWS),
            (train, validation, test),
            False,
            data,
            reading_from_dict(meta["reading"]),
        ),
        found,
    )


def _folder_images(images: Collected, found: Walk) -> FolderImages:
    labels, files, pages = images.rows.T
    return FolderImages(
        images.class_names,
        images.pixels,
        np.ascontiguousarray(labels) if images.class_names else None,
        tuple(
            page_name(found.files[file].relative_to(found.root).as_posix(), page)
            for file, page in zip(files.tolist(), pages.tolist(), strict=True)
        ),
        images.num_on_side,
        images.data,
        images.reading,
    )


def _decode_into_cache(
    found: Walk, names: str, data: DataConfig, seed: int, cache: Path
) -> FolderImages:
    """Decode and keep the result in `cache`; in memory alone where it can't be written."""
    try:
        return _fill_cache(found, names, data, seed, cache)
    except OSError as error:
        say(f"{cache}: decoded images can't be kept there ({error}), only in memory")
        images = collect(found, data, seed, lambda shape: np.empty(shape, np.uint8))
        return _folder_images(images, found)


def _fill_cache(found: Walk, names: str, data: DataConfig, seed: int, cache: Path) -> FolderImages:
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".tmp-") as temporary:
        folder = Path(temporary) / "entry"
        folder.mkdir()
        images = collect(found, data, seed, lambda shape: _new_map(folder / _PIXELS, shape))
        np.save(folder / _ROWS, images.rows)
        meta = _meta(images, {name: file_sha256(folder / name) for name in (_PIXELS, _ROWS)})
        write_sealed(folder / _META, meta)
        choice = _Choice(images.data, images.is_split)
        entry = cache / _entry_key(names, choice, seed)
        if _read_entry(entry, choice.data, found) is None:
            shutil.rmtree(entry, ignore_errors=True)  # damaged
            try:
                folder.rename(entry)
            except OSError:  # another process made the same one first
                if not entry.is_dir():
                    raise
        for each in (data, images.data):
            _write_choice(cache, _key(names, each), choice)
    return _open_entry(entry, meta, images.data, found)


def _meta(images: Collected, sha256: dict[str, str]) -> dict[str, Any]:
    """JSON values, as they come back from the file."""
    return {
        "format_version": CACHE_FORMAT_VERSION,
        "files": sha256,
        "class_names": list(images.class_names),
        "num_on_side": list(images.num_on_side),
        "reading": reading_to_dict(images.reading),
    }


def _new_map(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = open_memmap(path, "w+", np.uint8, shape)
    reserve(path)
    return pixels
