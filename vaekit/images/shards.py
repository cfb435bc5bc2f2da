"""Image files surveyed and decoded by all ranks into parts that are kept beside them."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from vaekit.config import DataConfig
from vaekit.images.coded import NONE, Coded
from vaekit.images.collect import Read, page_name
from vaekit.images.copies import digests
from vaekit.images.decode import Source, decode_files
from vaekit.images.mapped import BLOCK, Mapped, MappedImages, Which, blocks
from vaekit.images.parts import (
    Part,
    Rows,
    Settings,
    Work,
    do_parts,
    extended,
    find,
    keys_of,
    plan,
    read_parts,
    rows_of,
)
from vaekit.images.preparation import RESIZE_FILTER
from vaekit.images.ranks import Ranks
from vaekit.images.survey import PAGE, Survey, asks_border, survey
from vaekit.images.walk import Walk
from vaekit.progress import Progress
from vaekit.storage.files import reserve

# A shard of grey images has at most 128 MB of pixels, one of colours three times that.
SHARD_BYTES = 2**27
MOST_FILES = 2**18  # in a part, whose work is lost where it is killed
FEWEST_FILES = 1000  # in a part that is made smaller so that every rank has one

HEADERS, SHARD = "headers", "shard"
PIXELS = ".npy"

_HEADER: list[tuple[Any, ...]] = [
    ("asks_border", "?"), ("num_pages", "<i4"), ("fault", "<i4"), *PAGE,
]  # fmt: skip
_DECODED: list[tuple[Any, ...]] = [("fault", "<i4"), ("fates", "<i4"), ("digest", "<u8", (2,))]


class Task(NamedTuple):
    """What all ranks do next; it goes from one to the others as JSON."""

    prefix: str  # HEADERS or SHARD
    planned: dict[str, int]
    background: str
    value_range: str
    channels: int  # 0 where that is not known yet


class ShardedReader:
    """Reads the files of a folder with all ranks; rank 0 has one, and the others do its tasks."""

    def __init__(self, root: Path, cache: Path, ranks: Ranks) -> None:
        self._root, self._cache, self._ranks = root, cache, ranks
        self.shards: list[Part] = []  # those that the images decoded last lie in

    def survey(self, found: Walk, files: NDArray[np.int64], data: DataConfig) -> Survey:
        """As `survey`, of what is known and what all ranks find out now."""
        if not len(files):
            return survey([], data)
        asked = asks_border(len(files))

        def rows(which: NDArray[np.int64]) -> Rows:
            made = extended(rows_of(found, files[which]), _HEADER)
            made["asks_border"] = asked[which]
            return made

        task = Task(HEADERS, {}, "", "", 0)
        return _surveyed(*self._read(task, data, len(files), rows, asked), asked)

    def decode(
        self,
        found: Walk,
        files: NDArray[np.int64],
        pages: NDArray[np.int32],
        channels: int,
        data: DataConfig,
    ) -> Read:
        def rows(which: NDArray[np.int64]) -> Rows:
            return rows_of(found, files[which], pages[which])

        task = Task(SHARD, {}, data.background, data.value_range, channels)
        self.shards, places = self._read(task, data, len(files), rows)
        return mapped_read(self.shards, places)

    def _read(
        self,
        task: Task,
        data: DataConfig,
        count: int,
        rows: Callable[[NDArray[np.int64]], Rows],
        asked: NDArray[np.bool_] | None = None,
    ) -> tuple[list[Part], NDArray[np.int64]]:
        """The parts in which all `count` images are, and where they are there [N].

        `rows` makes the rows of some; of those `asked`, the border must be known.
        """
        folder, settings = folder_of(self._cache, task, data), settings_of(task, data)
        keys = keys_of(count, rows)
        parts = read_parts(folder, task.prefix, settings)
        places = _find(parts, keys, asked)
        if (places < 0).any():
            missing = np.flatnonzero(places < 0)
            size = evenly(len(missing), files_in_a_part(task, data), self._ranks.number)
            task = task._replace(planned=plan(folder, task.prefix, missing, size, rows))
            self._ranks.share(json.dumps(task._asdict()))
            do(task, data, self._root, self._cache, self._ranks)
            parts = read_parts(folder, task.prefix, settings)
            places = _find(parts, keys, asked)
            if (places < 0).any():
                raise OSError(f"{folder}: what was written there a moment ago is gone")
        return parts, places


def _find(
    parts: Sequence[Part], keys: NDArray[np.bytes_], asked: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    known = [part.rows for part in parts]
    places = find(known, keys)
    if asked is not None and known:
        looked_at = np.flatnonzero(asked & (places >= 0))
        has_border = Mapped(known, places[looked_at]).column("asks_border")
        places[looked_at[~has_border]] = -1
    return places


def mapped_images(parts: Sequence[Part], places: NDArray[np.int64]) -> MappedImages:
    """The images at `places` [N] of shards."""
    pixels = [open_memmap(part.folder / f"{part.name}{PIXELS}", mode="r") for part in parts]
    return MappedImages(pixels, [part.rows for part in parts], places)


def mapped_read(parts: Sequence[Part], places: NDArray[np.int64]) -> Read:
    """The images at `places` [N] of shards, and what became of each."""
    images = mapped_images(parts, places)
    faults, fates = _coded(parts, places, "fault"), _coded(parts, places, "fates")
    fates = fates._replace(values=[tuple(each) for each in fates.values])
    return Read(images, faults, fates, lambda: digests(images))


class FileNames(Sequence[str]):
    """The names of the files of mapped images, with the number of a later page."""

    def __init__(self, table: Mapped) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, which: int) -> str: ...

    @overload
    def __getitem__(self, which: Which) -> "FileNames": ...

    def __getitem__(self, which: int | Which) -> "str | FileNames":
        if isinstance(which, slice | np.ndarray):
            return FileNames(self._table.select(which))
        return _name(self._table[which])

    def __iter__(self) -> Iterator[str]:
        for block in blocks(self._table):
            yield from map(_name, block)


def _name(row: Any) -> str:
    return page_name(os.fsdecode(row["name"].item()), int(row["page"]))


def folder_of(cache: Path, task: Task, data: DataConfig) -> Path:
    """Where the parts of a task lie: its name says what they are."""
    if task.prefix == HEADERS:
        looks = [name for name in ("background", "value_range") if getattr(data, name) == "auto"]
        return cache / "-".join([HEADERS, data.pages, data.reading, *looks])
    height, width = data.size
    words = (f"{height}x{width}x{task.channels}", data.fit, task.background, task.value_range)
    return cache / "-".join([*words, data.pages, data.reading]).replace("/", "_")


def settings_of(task: Task, data: DataConfig) -> Settings:
    """All that the parts of a task depend on beside the files."""
    settings: Settings = {"pages": data.pages, "reading": data.reading}
    if task.prefix == HEADERS:
        return settings
    return settings | {
        "size": list(data.size),
        "channels": task.channels,
        "fit": data.fit,
        "background": task.background,
        "value_range": task.value_range,
        "resize_filter": RESIZE_FILTER,
    }


def files_in_a_part(task: Task, data: DataConfig) -> int:
    height, width = data.size
    most = SHARD_BYTES // (height * width) if task.prefix == SHARD else MOST_FILES
    return max(1, min(MOST_FILES, most))


def evenly(count: int, most: int, num_ranks: int) -> int:
    """So many of `count` files in a part, at most `most`, that all ranks have as many parts."""
    num_parts = -(-count // (most * num_ranks)) * num_ranks
    return min(most, max(FEWEST_FILES, -(-count // num_parts)))


def do(task: Task, data: DataConfig, root: Path, cache: Path, ranks: Ranks) -> None:
    """Do a task with all ranks, which must all call it. Raises as `do_parts` does."""
    folder, settings = folder_of(cache, task, data), settings_of(task, data)
    description = "decoding" if task.prefix == SHARD else "reading headers"
    total = sum(task.planned.values())
    is_main = ranks.index == 0
    with Progress(description, total, "images", visible=is_main, is_result=False) as progress:
        if task.prefix == SHARD:
            settled = replace(data, background=task.background, value_range=task.value_range)
            work = decoding(partial(_sources, root), settled, task.channels, progress.advance)
        else:
            work = _surveying(root, data, progress.advance)
        do_parts(folder, task.planned, settings, work, ranks, progress.advance)


def _surveying(root: Path, data: DataConfig, advance: Callable[[int], None]) -> Work:
    def work(rows: Rows, _stem: str) -> tuple[Rows, dict[str, Any]]:
        found = survey(
            _paths(root, rows),
            data,
            with_border=rows["asks_border"].tolist(),
            advance=advance,
        )
        num_rows = np.maximum(1, found.num_pages)
        made = np.repeat(rows, num_rows)
        made["page"] = np.arange(len(made)) - np.repeat(np.cumsum(num_rows) - num_rows, num_rows)
        made["num_pages"] = np.repeat(found.num_pages, num_rows)
        made["fault"] = np.repeat(found.faults.codes, num_rows)
        is_page = made["num_pages"] > 0
        for name, _ in PAGE:
            made[name][is_page] = found.pages[name]
        return made, {"fault": list(found.faults.values)}

    return work


def _surveyed(parts: Sequence[Part], places: NDArray[np.int64], asked: NDArray[np.bool_]) -> Survey:
    """Of the files whose first pages are at `places`, of which some are `asked` for a border."""
    first = Mapped([part.rows for part in parts], places)
    num_pages = first.column("num_pages")
    of_file = np.repeat(np.arange(len(places)), num_pages)
    pages = np.arange(len(of_file)) - (np.cumsum(num_pages) - num_pages)[of_file]
    rows = Mapped(first.parts, places[of_file] + pages)
    return Survey(num_pages, _coded(parts, places, "fault"), rows, asked[of_file])


def decoding(
    sources: Callable[[Rows], list[Source]],
    data: DataConfig,
    channels: int,
    advance: Callable[[int], None],
) -> Work:
    """The work of a shard: rows, of which `sources` gives the files, decoded and kept."""

    def work(rows: Rows, stem: str) -> tuple[Rows, dict[str, Any]]:
        path = Path(f"{stem}{PIXELS}")
        shape = (len(rows), channels, *data.size)
        pixels = open_memmap(path, "w+", np.uint8, shape)
        reserve(path)
        decoded = decode_files(sources(rows), pixels, data, "decoding", advance)
        made = extended(rows, _DECODED)
        faults, fates = decoded
        made["fault"], made["fates"], made["digest"] = faults.codes, fates.codes, digests(pixels)
        pixels.flush()
        return made, {"fault": list(faults.values), "fates": [list(each) for each in fates.values]}

    return work


def _sources(root: Path, rows: Rows) -> list[Source]:
    pages = rows["page"].tolist()
    return [Source(path, page) for path, page in zip(_paths(root, rows), pages, strict=True)]


def _paths(root: Path, rows: Rows) -> list[Path]:
    return [root / os.fsdecode(name) for name in rows["name"].tolist()]


def _coded(parts: Sequence[Part], places: NDArray[np.int64], field: str) -> Coded:
    """What the codes of a field stand for in the parts that `places` [N] are in."""
    codes = Mapped([part.rows for part in parts], places).column(field)
    ends = np.cumsum([len(part.rows) for part in parts])
    values = [part.values[field] for part in parts]
    first = np.cumsum([0, *map(len, values)])
    for start in range(0, len(codes), BLOCK):
        some = codes[start : start + BLOCK]
        part_of = np.searchsorted(ends, places[start : start + BLOCK], side="right")
        some[some != NONE] += first[part_of][some != NONE].astype(np.int32)
    return Coded(codes, [value for each in values for value in each])
