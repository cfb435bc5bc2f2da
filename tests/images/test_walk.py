"""The files of a folder are found in order of their paths, and held in few bytes each."""

import os
import tracemalloc
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaekit.config import DataConfig
from vaekit.images import mapped, parts, shards
from vaekit.images import names as naming
from vaekit.images import walk as walking
from vaekit.images.cache import _write_set
from vaekit.images.coded import NONE, Coded
from vaekit.images.collect import collect
from vaekit.images.decode import Decoded
from vaekit.images.names import Names
from vaekit.images.ranks import ALONE
from vaekit.images.survey import PAGE, Page, Survey
from vaekit.images.walk import LeftOut, Walk, walk

# An image, all that is held and its name included: at ten million 1.5 GB, and of pages 1.85.
MOST_BYTES = {1: 150, 2: 185}


@pytest.mark.parametrize("at_once", [1, 2, 65_536])
def test_files_come_in_the_order_of_their_paths(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "_AT_ONCE", at_once)
    names = (
        "b", "a/z", "a.png", "a-b/c", "a/b/c", "a/b.png", "ä/ö", "c\udcff/x", "c\ue000", "c\udcffa",
    )  # fmt: skip
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name.encode("utf-8", "replace").decode())
    (tmp_path / "a" / ".hidden").touch()
    (tmp_path / "gone").symlink_to("nothing")
    found = walk(tmp_path, by_suffix=False)
    paths = [found.path(index) for index in range(len(found))]
    expected = [path for path in tmp_path.rglob("[!.]*") if path.is_symlink() or path.is_file()]
    assert paths == sorted(expected)
    assert found.sizes.tolist() == [path.lstat().st_size for path in paths]
    assert found.times.tolist() == [path.lstat().st_mtime_ns for path in paths]
    assert [*found.left_out] == [("hidden", "a/.hidden")]


@pytest.mark.parametrize("change", ["name", "folder", "size", "time", "hidden"])
def test_the_signature_changes_with_whatever_is_found(change: str, tmp_path: Path) -> None:
    file = tmp_path / "a" / "1.png"
    (tmp_path / "b").mkdir()
    file.parent.mkdir()
    file.touch()
    before = walk(tmp_path, by_suffix=False).signature()
    assert walk(tmp_path, by_suffix=False).signature() == before
    if change == "name":
        file.rename(file.with_name("2.png"))
    elif change == "folder":
        file.rename(tmp_path / "b" / "1.png")
    elif change == "size":
        times = file.stat()
        file.write_bytes(b"1")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "time":
        os.utime(file, (1, 1))
    else:
        (tmp_path / "b" / ".hidden").touch()
    assert walk(tmp_path, by_suffix=False).signature() != before


def made_up(root: Path, count: int) -> Walk:
    """Files in two folders, of which none is there."""
    names = Names()
    for _ in range(2):
        names.extend(np.array([b"%07d.png" % number for number in range(count // 2)]))
    folders = [root, root / "a", root / "b"]
    folder_of = np.repeat(np.array([1, 2], np.int32), count // 2)
    return Walk(root, folders, names, folder_of, *np.ones((2, count), np.int64), LeftOut())


def surveyed(num_pages: int, files: Any, *_: Any, **__: Any) -> Survey:
    count = len(files)
    rows = np.full(num_pages * count, np.array(Page(has_colour=False, has_alpha=False), PAGE))
    codes = np.full(count, NONE, np.int32)
    of_files = np.full(count, num_pages, np.int32)
    return Survey(of_files, Coded(codes, []), rows, np.zeros(len(rows), bool))


def decoded(sources: Any, pixels: Any, *_: Any) -> Decoded:
    pixels[...] = np.random.default_rng(len(sources)).integers(0, 256, pixels.shape)
    codes = np.zeros(len(sources), np.int32)
    return Decoded(Coded(codes + NONE, []), Coded(codes, [()]))


@pytest.mark.slow
@pytest.mark.parametrize("num_pages", [1, 2])
def test_decoding_holds_few_bytes_of_each_image(
    num_pages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "survey", partial(surveyed, num_pages))
    monkeypatch.setattr(shards, "decode_files", decoded)
    # What a part and a block take does not grow.
    monkeypatch.setattr(shards, "MOST_FILES", 1000)
    monkeypatch.setattr(naming, "_AT_ONCE", 256)
    monkeypatch.setattr(shards, "_paths", lambda _, rows: range(len(rows)))  # pathlib keeps names
    for module in (mapped, parts, shards):
        monkeypatch.setattr(module, "BLOCK", 256)
    data = replace(DataConfig(image_size=8), reading="content")

    def peak_of(count: int) -> int:
        root = tmp_path / str(count)
        cache = root / ".vaekit-cache"
        cache.mkdir(parents=True)
        tracemalloc.start()
        try:
            found = made_up(root, count // num_pages)
            reader = shards.ShardedReader(root, cache, ALONE)
            images = collect(found, data, 0, reader)
            _write_set(cache, "key", images, reader.shards)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_of(1_000)  # imports what is imported late
    few, many = peak_of(8_000), peak_of(24_000)  # so many that a part takes less than they do
    assert many - few < 16_000 * MOST_BYTES[num_pages]
