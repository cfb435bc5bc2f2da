"""The images of a folder as one array, decoded once and kept beside them."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from vaekit.config import DataConfig
from vaekit.errors import UserError, say, some_of
from vaekit.images.decode import common_channels, decode_files
from vaekit.images.folder import Listing, list_folder
from vaekit.images.preparation import RESIZE_FILTER
from vaekit.storage.files import file_sha256, reserve, user_path, write_json

CACHE_FOLDER = ".vaekit-cache"
CACHE_FORMAT_VERSION = 2

_PIXELS, _KEPT, _META = "pixels.npy", "kept.npy", "meta.json"


class FolderImages(NamedTuple):
    """The images of a folder, those to train on first."""

    class_names: tuple[str, ...]  # () for an unlabelled folder
    pixels: NDArray[np.uint8]  # [N, C, H, W]; may be a memory map
    labels: NDArray[np.int64] | None  # [N]
    files: tuple[str, ...]  # [N], relative to the folder
    num_train: int


class _Decoded(NamedTuple):
    """What the cache holds; the labels are in the listing."""

    pixels: NDArray[np.uint8]  # [N, C, H, W]
    kept: NDArray[np.int64]  # [N], indices of the listed files that could be read


def read_folder(config: DataConfig, seed: int) -> FolderImages:
    """A folder of image files, from the cache where the same files were decoded before.

    The channels are those that hold every file: grey or colour, with alpha or without. An image
    is resized whole to a square, its aspect not kept; EXIF orientation is applied. `seed` splits
    a folder that has no train/ and test/. Raises `UserError` for a folder in none of the layouts,
    and for unreadable files that are not to be skipped.
    """
    listing = list_folder(user_path("--data.root", config.root), seed)
    cache = listing.root / CACHE_FOLDER / _cache_key(listing, config)
    decoded = _read_cache(cache)
    if decoded is None:
        say(f"decoding {len(listing.paths)} images of {listing.root}")
        decoded = _decode_into_cache(listing, config, cache)
        say(f"decoded {len(decoded.kept)} images into shape {decoded.pixels.shape[1:]}")
    unreadable = _left_out(listing, decoded.kept)
    if unreadable:
        say(f"{listing.root}: going on without the unreadable {some_of(unreadable)}")
    return FolderImages(
        listing.class_names,
        decoded.pixels,
        listing.labels[decoded.kept] if listing.class_names else None,
        tuple(_name(listing, index) for index in decoded.kept.tolist()),
        _num_train(listing, decoded.kept),
    )


def _name(listing: Listing, index: int) -> str:
    return listing.paths[index].relative_to(listing.root).as_posix()


def _num_train(listing: Listing, kept: NDArray[np.int64]) -> int:
    return int((kept < listing.num_train).sum())


def _left_out(listing: Listing, kept: NDArray[np.int64]) -> list[str]:
    """The files that are not kept, relative to the folder."""
    left_out = np.delete(np.arange(len(listing.paths)), kept)
    return sorted(_name(listing, index) for index in left_out.tolist())


def _cache_key(listing: Listing, config: DataConfig) -> str:
    """A hash of all that decides what is in the cache; of the files names, sizes and times."""
    facts = [
        CACHE_FORMAT_VERSION,
        RESIZE_FILTER,
        config.image_size,
        config.skip_unreadable,
        listing.num_train,
    ]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for path in listing.paths:
        try:
            status = path.stat()
        except OSError:  # a dangling link
            status = path.lstat()
        name = path.relative_to(listing.root).as_posix()
        digest.update(json.dumps([name, status.st_size, status.st_mtime_ns]).encode())
    return digest.hexdigest()[:32]


def _read_cache(cache: Path) -> _Decoded | None:
    """What `_decode_into_cache` kept; None where nothing is or it is damaged."""
    try:
        meta = json.loads((cache / _META).read_text(encoding="utf-8"))
        if any(file_sha256(cache / name) != meta["sha256"][name] for name in (_PIXELS, _KEPT)):
            return None
        return _open_cache(cache)
    except (OSError, ValueError, KeyError):
        return None


def _open_cache(cache: Path) -> _Decoded:
    return _Decoded(np.load(cache / _PIXELS, mmap_mode="c"), np.load(cache / _KEPT))


def _decode_into_cache(listing: Listing, config: DataConfig, cache: Path) -> _Decoded:
    """Decode and keep the result at `cache`; in memory alone where it can't be written."""
    try:
        return _fill_cache(listing, config, cache)
    except OSError as error:
        say(f"{cache.parent}: decoded images can't be kept there ({error}), only in memory")
        return _decode(listing, config, lambda shape: np.empty(shape, np.uint8))


def _fill_cache(listing: Listing, config: DataConfig, cache: Path) -> _Decoded:
    cache.parent.mkdir(exist_ok=True)
    if cache.exists():  # damaged
        shutil.rmtree(cache)
    with tempfile.TemporaryDirectory(dir=cache.parent, prefix=".tmp-") as temporary:
        folder = Path(temporary) / cache.name
        folder.mkdir()
        decoded = _decode(listing, config, lambda shape: _new_map(folder / _PIXELS, shape))
        np.save(folder / _KEPT, decoded.kept)
        meta = {
            "format": "vaekit-images",
            "format_version": CACHE_FORMAT_VERSION,
            "sha256": {name: file_sha256(folder / name) for name in (_PIXELS, _KEPT)},
        }
        write_json(folder / _META, meta)
        try:
            folder.rename(cache)
        except OSError:  # another process made the same one first
            if not cache.is_dir():
                raise
    return _open_cache(cache)


def _new_map(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = open_memmap(path, "w+", np.uint8, shape)
    reserve(path)
    return pixels


def _decode(
    listing: Listing,
    config: DataConfig,
    empty: Callable[[tuple[int, ...]], NDArray[np.uint8]],
) -> _Decoded:
    """Decode every file into an array that `empty` makes.

    Where files are unreadable and to be skipped, all starts anew without them, since they may
    have had a say in the number of channels.
    """
    kept = np.arange(len(listing.paths))
    while True:
        paths = [listing.paths[i] for i in kept]
        pixels = empty((len(paths), common_channels(paths), config.image_size, config.image_size))
        failed = decode_files(paths, pixels, "decoding")
        if not failed:
            return _Decoded(pixels, kept)
        kept = np.delete(kept, failed)
        _check_left_out(listing, config, kept)


def _check_left_out(listing: Listing, config: DataConfig, kept: NDArray[np.int64]) -> None:
    unreadable = some_of(_left_out(listing, kept))
    if not config.skip_unreadable:
        raise UserError(
            f"--data.root {listing.root}: can't read {unreadable}; replace or delete them, "
            f"or leave them out with --data.skip_unreadable"
        )
    num_train = _num_train(listing, kept)
    for split, num_kept in (("train", num_train), ("test", len(kept) - num_train)):
        if num_kept == 0:
            raise UserError(
                f"--data.root {listing.root}: none of the {split} images can be read "
                f"({unreadable}); replace them"
            )
