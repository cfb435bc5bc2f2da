"""The images of a large Hugging Face data set, decoded once into shards that are kept."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.config import DataConfig
from vaekit.images.cache import remove_damaged
from vaekit.images.collect import Read
from vaekit.images.decode import Source
from vaekit.images.formats import ImageFile
from vaekit.images.parts import (
    Part,
    Rows,
    do_parts,
    find,
    keys_of,
    plan,
    read_parts,
    with_names,
)
from vaekit.images.ranks import ALONE
from vaekit.images.shards import (
    SHARD,
    Task,
    decoding,
    files_in_a_part,
    folder_of,
    mapped_read,
    settings_of,
)
from vaekit.progress import Progress

_WIDTH = 20  # digits of a row's number
_TIMES = 3  # that damaged shards are made again


class RowImages(NamedTuple):
    """The images of rows, and the shards in which they lie."""

    read: Read
    shards: list[Part]


def read_rows(
    cache: Path,
    fingerprint: str,
    num_rows: int,
    files: Callable[[Sequence[int]], Sequence[ImageFile]],
    channels: int,
    data: DataConfig,
) -> RowImages:
    """The images of all rows of a data set of this fingerprint, `files` being those of some.

    Raises `OSError` where they can't be kept.
    """
    task = Task(SHARD, {}, data.background, data.value_range, channels)
    folder = cache / f"{folder_of(cache, task, data).name}-{fingerprint}"
    settings = settings_of(task, data) | {"fingerprint": fingerprint}

    def rows(which: NDArray[np.int64]) -> Rows:
        made = np.zeros(len(which), with_names(_WIDTH))
        made["name"] = which.astype(f"S{_WIDTH}")
        return made

    keys = keys_of(num_rows, rows)

    def sources(rows: Rows) -> list[Source]:
        return [Source(file) for file in files([int(name) for name in rows["name"].tolist()])]

    for _ in range(_TIMES):
        parts = read_parts(folder, SHARD, settings)
        missing = np.flatnonzero(find([part.rows for part in parts], keys) < 0)
        if len(missing):
            planned = plan(folder, SHARD, missing, files_in_a_part(task, data), rows)
            with Progress("decoding", len(missing), "images", is_result=False) as progress:
                work = decoding(sources, data, channels, progress.advance)
                do_parts(folder, planned, settings, work, ALONE, progress.advance)
            parts = read_parts(folder, SHARD, settings)
        if not remove_damaged(cache, parts):
            places = find([part.rows for part in parts], keys)
            return RowImages(mapped_read(parts, places), parts)
    raise OSError(f"{folder}: images were damaged each time that they had been written there")
