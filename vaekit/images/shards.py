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
from vaekit.images.collect import Read, page_name
from vaekit.images.copies import digests
from vaekit.images.decode import Source, decode_files
from vaekit.images.mapped import Mapped, MappedImages, Which, blocks
from vaekit.images.parts import (
    Part,
    Rows,
    Settings,
    Work,
    do_parts,
    extended,
    find,
    plan,
    read_parts,
    rows_of,
)
from vaekit.images.preparation import RESIZE_FILTER
from vaekit.images.ranks import Ranks
from vaekit.images.survey import Page, Surveyed, asks_border, survey
from vaekit.progress import Progress
from vaekit.storage.files import reserve

# A shard of grey images has at most 128 MB of pixels, one of colours three times that.
SHARD_BYTES = 2**27
MOST_FILES = 2**18  # in a part, whose work is lost where it is killed
FEWEST_FILES = 1000  # in a part that is made smaller so that every rank has one

HEADERS, SHARD = "headers", "shard"
PIXELS = ".npy"

_HALF = "<u8"
_HEADER: list[tuple[Any, ...]] = [
    ("asks_border", "?"), ("num_pages", "<i4"), ("fault", "<i4"), ("has_colour", "?"),
    ("has_alpha", "?"), ("is_deep", "?"), ("low", "<f8"), ("high", "<f8"), ("is_float", "?"),
    ("light", "<f8"), ("border", "<f8"), ("upper", "<i4"),
]  # fmt: skip
_DECODED: list[tuple[Any, ...]] = [("fault", "<i4"), ("fates", "<i4"), ("digest", _HALF, (2,))]
_NO_FAULT = -1


class Task(NamedTuple):
    """What all ranks do next; it goes from one to the others as JSON."""

    prefix: str  # HEADERS or SHARD
    planned: dict[str, int]
    background: str
    value_range: str
    channels: int  # 0 where that is not known yet

    def text(self) -> str:
        return json.dumps(self._asdict())


class ShardedReader:
    """Reads the files of a folder with all ranks; rank 0 has one, and the others do its tasks."""

    def __init__(self, root: Path, cache: Path, ranks: Ranks) -> None:
        self._root, self._cache, self._ranks = root, cache, ranks
        self.shards: list[Part] = []  # those that the images decoded last lie in

    def survey(self, paths: Sequence[Path], data: DataConfig) -> list[Surveyed]:
        """As `survey` of every value, of what is known and what all ranks find out now."""
        if not paths:
            return []
        rows = extended(rows_of(self._root, paths), _HEADER)
        rows["asks_border"] = asks_border(len(paths))
        parts, places = self._read(Task(HEADERS, {}, "", "", 0), data, rows)
        return _surveyed(parts, places, rows["asks_border"])

    def decode(self, sources: Sequence[Source], channels: int, data: DataConfig) -> Read:
        paths = [source.file for source in sources if isinstance(source.file, Path)]
        rows = rows_of(self._root, paths, [source.page for source in sources])
        task = Task(SHARD, {}, data.background, data.value_range, channels)
        parts, places = self._read(task, data, rows)
        self.shards = parts
        return mapped_read(parts, places)

    def _read(
        self, task: Task, data: DataConfig, wanted: Rows
    ) -> tuple[list[Part], NDArray[np.int64]]:
        """The parts in which `wanted` [N] are, and where they are there [N]."""
        folder, settings = folder_of(self._cache, task, data), settings_of(task, data)
        parts = read_parts(folder, task.prefix, settings)
        places = self._find(parts, wanted)
        if (places < 0).any():
            missing = wanted[places < 0]
            most = files_in_a_part(task, data)
            size = evenly(len(missing), most, self._ranks.number)
            planned = plan(folder, task.prefix, missing, size)
            task = task._replace(planned=planned)
            self._ranks.share(task.text())
            do(task, data, self._root, self._cache, self._ranks)
            parts = read_parts(folder, task.prefix, settings)
            places = self._find(parts, wanted)
            if (places < 0).any():
                raise OSError(f"{folder}: what was written there a moment ago is gone")
        return parts, places

    def _find(self, parts: Sequence[Part], wanted: Rows) -> NDArray[np.int64]:
        places = find([part.rows for part in parts], wanted)
        if "asks_border" in (wanted.dtype.names or ()) and len(parts):
            known = Mapped([part.rows for part in parts], np.maximum(places, 0))[:]
            places[wanted["asks_border"] & ~known["asks_border"]] = -1
        return places


def mapped_images(parts: Sequence[Part], places: NDArray[np.int64]) -> MappedImages:
    """The images at `places` [N] of shards."""
    pixels = [open_memmap(part.path(PIXELS), mode="r") for part in parts]
    return MappedImages(pixels, [part.rows for part in parts], places)


def mapped_read(parts: Sequence[Part], places: NDArray[np.int64]) -> Read:
    """The images at `places` [N] of shards, and what became of each."""
    images = mapped_images(parts, places)
    faults, fates = _texts(parts, places, "fault"), _texts(parts, places, "fates")
    return Read(
        images,
        {index: str(fault) for index, fault in enumerate(faults) if fault is not None},
        [tuple(each) for each in fates],
        lambda: digests(images),
    )


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
            every_value=True,
            with_border=rows["asks_border"].tolist(),
            advance=advance,
        )
        made = rows[np.repeat(np.arange(len(rows)), [max(1, len(each.pages)) for each in found])]
        faults: dict[str, int] = {}
        place = 0
        for each in found:
            for page in range(max(1, len(each.pages))):
                row = made[place]
                place += 1
                row["page"], row["num_pages"] = page, len(each.pages)
                row["fault"] = _coded(each.fault, faults)
                if each.pages:
                    _write_page(row, each.pages[page])
        return made, {"fault": list(faults)}

    return work


def _write_page(row: Any, page: Page) -> None:
    for name, value in page._asdict().items():
        row[name] = (_NO_FAULT if name == "upper" else np.nan) if value is None else value


def _surveyed(
    parts: Sequence[Part], places: NDArray[np.int64], with_border: NDArray[np.bool_]
) -> list[Surveyed]:
    """Of the files whose first pages are at `places`; equal ones are one object."""
    rows = Mapped([part.rows for part in parts], places)[:]
    faults = _texts(parts, places, "fault")
    same: dict[Any, Any] = {}
    found = []
    fields = [name for name, *_ in _HEADER[3:]]
    for place, row, fault, has_border in zip(
        places.tolist(), rows, faults, with_border.tolist(), strict=True
    ):
        count = int(row["num_pages"])
        every = [row]
        if count > 1:
            after = np.arange(place, place + count)
            every = list(Mapped([part.rows for part in parts], after)[:])
        pages = []
        for each in every[:count]:
            values = [_plain(name, each[name].item()) for name in fields]
            page = Page(**dict(zip(fields, values, strict=True)))
            page = page if has_border else page._replace(border=None)
            pages.append(same.setdefault(page, page))
        surveyed = Surveyed(tuple(pages), None if fault is None else str(fault))
        found.append(same.setdefault(surveyed, surveyed))
    return found


def _plain(name: str, value: Any) -> Any:
    if name == "upper":
        return None if value == _NO_FAULT else value
    return None if isinstance(value, float) and value != value else value


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
        faults: dict[str, int] = {}
        fates: dict[tuple[str, ...], int] = {}
        unreadable = [decoded.unreadable.get(index) for index in range(len(rows))]
        made["fault"] = [_coded(each, faults) for each in unreadable]
        made["fates"] = [_coded(each, fates) for each in decoded.fates]
        made["digest"] = digests(pixels)
        pixels.flush()
        return made, {"fault": list(faults), "fates": [list(each) for each in fates]}

    return work


def _sources(root: Path, rows: Rows) -> list[Source]:
    pages = rows["page"].tolist()
    return [Source(path, page) for path, page in zip(_paths(root, rows), pages, strict=True)]


def _paths(root: Path, rows: Rows) -> list[Path]:
    return [root / os.fsdecode(name) for name in rows["name"].tolist()]


def _coded(value: Any, codes: dict[Any, int]) -> int:
    return _NO_FAULT if value is None else codes.setdefault(value, len(codes))


def _texts(parts: Sequence[Part], places: NDArray[np.int64], field: str) -> list[Any]:
    """What the codes of a field stand for, [N]; None for no fault."""
    ends = np.cumsum([len(part.rows) for part in parts])
    codes = Mapped([part.rows for part in parts], places)[:][field].tolist()
    part_of = np.searchsorted(ends, places, side="right").tolist()
    return [
        None if code == _NO_FAULT else parts[part].values[field][code]
        for part, code in zip(part_of, codes, strict=True)
    ]
