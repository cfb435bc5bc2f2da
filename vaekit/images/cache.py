"""The images of a folder: decoded once into shards beside them, of which a set is an index.

.vaekit-cache/28x28x1-stretch-white-0,255-first-content/shard-00000-1a2b3c4d.npy   pixels
.vaekit-cache/headers-first-content-background-value_range/headers-00000-...       surveys
.vaekit-cache/KEY/index.json, rows.npy   a set: its images in order, and the shards' hashes
.vaekit-cache/KEY.json                   what the files settled
.vaekit-cache/checked-BOOT.json          shards that were read whole since a machine's start
"""

import hashlib
import json
import platform
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import psutil

from vaekit.config import DataConfig
from vaekit.errors import UserError, say
from vaekit.images.collect import Collected, FolderImages, InMemory, collect, folder_images
from vaekit.images.facts import FactsPlace
from vaekit.images.mapped import MappedImages
from vaekit.images.parts import FORMAT_VERSION, Part, read_part, remove_part
from vaekit.images.preparation import RESIZE_FILTER
from vaekit.images.ranks import Ranks
from vaekit.images.reading import reading_from_dict
from vaekit.images.settled import SETTLED, Settled, in_pixels, read_settled, write_settled
from vaekit.images.shards import FileNames, ShardedReader, Task, do, mapped_images
from vaekit.images.single_file import read_single_file
from vaekit.images.walk import CACHE_FOLDER, walk
from vaekit.storage.damage import Damaged, as_written, strings, typed
from vaekit.storage.files import file_sha256, read_json, user_path, write_json
from vaekit.storage.sealed import read_sealed, write_sealed

# Up to so many bytes a set is read into memory as one array; a larger one stays in its shards.
IN_MEMORY_BYTES = 2**28

_ROWS, _INDEX = "rows.npy", "index.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIMES = 3  # that shards are made again where they are damaged, before that is given up


class _Order(NamedTuple):
    """What all ranks do at last; it goes from rank 0 to the others as JSON."""

    do: str  # open, single, memory, or refuse
    key: str = ""  # of the set to open
    sha256: str = ""  # of its index
    settled: tuple[str, ...] = ()
    why: str = ""  # it is refused


def read_folder(data: DataConfig, seed: int, ranks: Ranks) -> FolderImages:
    """A folder of image files, from the cache where the same files were decoded before.

    What is still to be decoded is divided among `ranks`, which must all call this. `seed` splits a
    folder that has no train/ and test/. Raises `UserError` for a folder in none of the layouts,
    for unreadable files that are not to be skipped, and where the ranks see different folders.
    """
    root = user_path("--data.root", data.root)
    cache = root / CACHE_FOLDER
    for _ in range(_TIMES):
        if ranks.index == 0:
            order = _lead(root, cache, data, seed, ranks)
        else:
            order = _follow(root, cache, data, ranks)
        if order.do == "refuse":
            raise UserError(order.why)
        by_suffix = data.reading == "suffix"
        if order.do == "memory":
            found = walk(root, by_suffix=by_suffix)
            return folder_images(collect(found, data, seed, InMemory()), found)
        if order.do == "single":
            images = read_single_file(walk(root, by_suffix=by_suffix), data, seed)
            if images is None:
                raise UserError(_disagreement(cache, ranks))
            return images
        opened = _open_as_told(cache, order, data, ranks)
        is_damaged = ranks.is_first_on_machine and remove_damaged(cache, opened.shards)
        if not ranks.any(is_damaged):
            return _kept(cache / order.key, opened)
    raise UserError(
        f"{cache}: images were damaged each time that they had been written there; check the disk, "
        f"or move the images to another one"
    )


class _Opened(NamedTuple):
    images: FolderImages
    shards: list[Part]
    sha256: str  # of the index


def _kept(place: Path, opened: _Opened) -> FolderImages:
    """In memory where they are few."""
    images = opened.images
    if images.pixels.nbytes > IN_MEMORY_BYTES:
        return images._replace(facts_place=FactsPlace(place, opened.sha256))
    return images._replace(pixels=images.pixels[:], files=tuple(images.files))


def _lead(root: Path, cache: Path, data: DataConfig, seed: int, ranks: Ranks) -> _Order:
    """Find the set of images, or make it with all ranks, and tell them where it is."""
    try:
        order = _find_or_make(root, cache, data, seed, ranks)
    except UserError as error:
        order = _Order("refuse", why=str(error.args[0]))
    ranks.share(json.dumps(order._asdict()))
    return order


def _follow(root: Path, cache: Path, data: DataConfig, ranks: Ranks) -> _Order:
    """Do what rank 0 asks for, until it says what to do at last."""
    while True:
        told = json.loads(ranks.share(""))
        if "do" in told:
            return _Order(**told)
        try:
            do(Task(**told), data, root, cache, ranks)
        except OSError:
            continue  # rank 0 knows, and says what follows


def _find_or_make(root: Path, cache: Path, data: DataConfig, seed: int, ranks: Ranks) -> _Order:
    found = walk(root, by_suffix=data.reading == "suffix")
    files = found.signature()
    settled = read_settled(_settled_path(cache, files, data), data, FORMAT_VERSION)
    if settled is not None:
        key = _set_key(files, settled, seed)
        opened = _open(cache, key, settled.data)
        if opened is not None:
            return _order_to_open(key, opened)
    if any(cache.glob("*/meta.json")) and read_single_file(found, data, seed) is not None:
        return _Order("single")
    say(f"decoding the images of {root}")
    try:
        cache.mkdir(exist_ok=True)
        reader = ShardedReader(root, cache, ranks)
        images = collect(found, data, seed, reader)
        settled = Settled(images.data, images.is_split)
        key = _set_key(files, settled, seed)
        _write_set(cache, key, images, reader.shards)
        for each in (data, images.data):
            write_settled(_settled_path(cache, files, each), settled, FORMAT_VERSION)
        opened = _open(cache, key, images.data)
        if opened is None:
            raise OSError(f"{cache / key}: what was written there a moment ago is gone")
    except OSError as error:
        say(f"{cache}: decoded images can't be kept there ({error}), only in memory")
        return _Order("memory")
    say(f"decoded {len(images.pixels)} images into shape {images.pixels.shape[1:]}")
    return _order_to_open(key, opened)


def _order_to_open(key: str, opened: _Opened) -> _Order:
    settled = tuple(getattr(opened.images.data, name) for name in SETTLED)
    return _Order("open", key, opened.sha256, settled)


def _open_as_told(cache: Path, order: _Order, data: DataConfig, ranks: Ranks) -> _Opened:
    """The set that rank 0 has found. Raises `UserError` where this rank sees another one."""
    background, value_range = order.settled
    settled = replace(data, background=background, value_range=value_range)
    opened = _open(cache, order.key, settled)
    if opened is None or opened.sha256 != order.sha256:
        raise UserError(_disagreement(cache, ranks))
    return opened


def _disagreement(cache: Path, ranks: Ranks) -> str:
    return (
        f"{cache}: rank {ranks.index} on {platform.node()} sees other images there than rank 0; "
        f"give a --data.root on a file system that all machines share"
    )


def _key(files: str, data: DataConfig, seed: int | None = None) -> str:
    text = json.dumps([FORMAT_VERSION, RESIZE_FILTER, files, in_pixels(data), seed])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _settled_path(cache: Path, files: str, data: DataConfig) -> Path:
    return cache / f"{_key(files, data)}.json"


def _set_key(files: str, settled: Settled, seed: int) -> str:
    return _key(files, settled.data, seed if settled.is_split else None)


def _write_set(cache: Path, key: str, images: Collected, shards: Sequence[Part]) -> None:
    """Which images of which shards a set is, in order, beside the hashes of the shards."""
    assert isinstance(images.pixels, MappedImages)
    with TemporaryDirectory(dir=cache, prefix=".tmp-") as temporary:
        made = Path(temporary) / key
        made.mkdir()
        np.save(made / _ROWS, np.stack([images.pixels.places, images.labels]))
        write_sealed(
            made / _INDEX,
            {
                "format_version": FORMAT_VERSION,
                "folder": shards[0].folder.name,
                "shards": {part.name: part.values["files"] for part in shards},
                "rows": file_sha256(made / _ROWS),
                "class_names": list(images.class_names),
                "num_on_side": list(images.num_on_side),
                "reading": asdict(images.reading),
            },
        )
        shutil.rmtree(cache / key, ignore_errors=True)  # damaged
        try:
            made.rename(cache / key)
        except OSError:  # another launch made the same one first
            if not (cache / key).is_dir():
                raise


def _open(cache: Path, key: str, data: DataConfig) -> _Opened | None:
    """What `_write_set` wrote; None where nothing is, or it or a shard is not whole by its size."""
    place = cache / key
    if not place.is_dir():
        return None
    try:
        index = read_sealed(place / _INDEX, version=FORMAT_VERSION)
        with as_written():
            if file_sha256(place / _ROWS) != index["rows"]:
                raise Damaged(f"{_ROWS} is not the file that was written")
            shards = [
                _shard(cache / typed(index["folder"], str), typed(name, str), files)
                for name, files in index["shards"].items()
            ]
            train, validation, test = (typed(number, int) for number in index["num_on_side"])
            class_names = strings(index["class_names"])
            places, labels = np.load(place / _ROWS, mmap_mode="r")
            pixels = mapped_images(shards, places)
            images = FolderImages(
                class_names,
                pixels,
                np.array(labels) if class_names else None,
                FileNames(pixels.table),
                (train, validation, test),
                data,
                reading_from_dict(index["reading"]),
            )
            return _Opened(images, shards, typed(index["sha256"], str))
    except (OSError, ValueError, Damaged) as fault:
        say(f"{place}: {fault}; what is missing is made again from the files")
        return None


def _shard(folder: Path, name: str, files: Any) -> Part:
    """A shard, as the index has it."""
    part = read_part(folder, name)
    if part.values["files"] != files:
        raise Damaged(f"{name} is another one than the index names")
    return part


def remove_damaged(cache: Path, shards: Sequence[Part]) -> bool:
    """Read shards that were not read since this machine was started; whether some are damaged.

    Those that have not changed since are trusted.
    """
    record = cache / f"checked-{_boot()}.json"
    checked = _read_record(record)
    files = [
        (part, name, sha256, part.folder / name)
        for part in shards
        for name, sha256 in part.sha256.items()
    ]
    states = {path: _state(path) for _, _, _, path in files}
    unread = [each for each in files if checked.get(_shown(each[3], cache)) != states[each[3]]]
    if not unread:
        return False
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(_hash, [path for *_, path in unread]))
    faults = {
        part.name: (part, f"{name} is not the file that was written")
        for (part, name, sha256, _), found in zip(unread, hashes, strict=True)
        if found != sha256
    }
    good = {
        _shown(path, cache): states[path] for part, *_, path in files if part.name not in faults
    }
    with suppress(OSError):  # or they are read again at the next start
        write_json(record, checked | good)
    for part, fault in faults.values():
        remove_part(part.folder, part.name, fault)
    return bool(faults)


class Examined(NamedTuple):
    """What a cache holds."""

    num_whole: int  # parts: shards, and what was found in headers
    faults: dict[str, str]  # of the others, by name


def examine(cache: Path) -> Examined:
    """Read every part of a cache whole; nothing is written or removed."""
    num_whole, faults = 0, {}
    for path in sorted(cache.glob("*/*-*.json")):
        if path.name.startswith("facts-"):
            continue
        try:
            part = read_part(path.parent, path.stem)
        except (OSError, Damaged) as fault:
            faults[_shown(path.with_suffix(""), cache)] = str(fault)
            continue
        wrong = [
            name for name, sha256 in part.sha256.items() if _hash(part.folder / name) != sha256
        ]
        if wrong:
            text = f"{wrong[0]} is not as it was written: delete it"  # a start may trust it
            faults[_shown(path.with_suffix(""), cache)] = text
        else:
            num_whole += 1
    return Examined(num_whole, faults)


def _boot() -> str:
    """This machine since it was started."""
    if _BOOT_ID.is_file():
        return _BOOT_ID.read_text().strip()
    return f"{platform.node()}-{psutil.boot_time():.0f}"


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except (OSError, Damaged):
        return {}
    return record if isinstance(record, dict) else {}


def _state(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _hash(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None


def _shown(path: Path, cache: Path) -> str:
    return path.relative_to(cache).as_posix()
