"""Hugging Face data sets: a name, a folder or parquet files, by way of the package `datasets`."""

import hashlib
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.config import DataConfig
from vaekit.errors import UserError, say, some_of
from vaekit.images import cache
from vaekit.images.arrays import assemble
from vaekit.images.collect import Read, read_in_memory
from vaekit.images.decode import Source
from vaekit.images.facts import FactsPlace
from vaekit.images.image_set import Images
from vaekit.images.kept_rows import RowImages, read_rows
from vaekit.images.parts import Part
from vaekit.images.reading import tallied
from vaekit.images.survey import Looks, asks_border, common_channels, looks_of, settle, survey
from vaekit.storage.files import user_path

_SIDES = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
}  # fmt: skip
_LABEL_NAMES = ("label", "labels", "class", "target")  # of columns whose type says nothing
_BUILDERS = {".parquet": "parquet", ".arrow": "arrow"}
ROWS_AT_ONCE = 10_000  # whose files are in memory while their headers are read
_ON_THE_HUB = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<subset>[\w.-]+))?")


def read_data_set(config: DataConfig, seed: int, download: bool) -> Images:
    """The data set that `--data.root` names; one on the Hub as OWNER/NAME, or OWNER/NAME:SUBSET.

    Images and labels are the columns whose types say so. Raises `UserError` where the package is
    not installed, where there is no such set, where columns are ambiguous, and where an image
    can't be read.
    """
    if find_spec("datasets") is None:
        raise UserError(
            "--data.name datasets: needs the package datasets, which is not installed; "
            "`pip install 'vaekit[datasets]'`"
        )
    with _quiet_and(offline=not download):
        splits = _load(config)
    sides = _sides(splits, config)
    features = sides["train"].features
    image, label = _image_column(features, config), _label_column(features, config)
    arrays, config, fates, shards = _images(sides, image, config)
    if label is not None:
        arrays |= {f"{side}_labels": np.array(rows[label][:]) for side, rows in sides.items()}
    names = getattr(features[label], "names", None) if label else None
    left_out = [name for name in splits if name.lower() not in _SIDES]
    made = assemble(arrays, config, seed, None if names is None else tuple(names), left_out)
    columns = f"images are those of the column {image}, "
    columns += f"labels those of {label}" if label else "and no column is one of labels"
    reading = replace(
        made.reading,
        used_otherwise=(*fates, *made.reading.used_otherwise),
        remarks=(columns, *made.reading.remarks),
    )
    return replace(
        made,
        reading=reading,
        facts_place=_facts_place(shards, sides, label, seed) if shards else None,
    )


def _facts_place(
    shards: Sequence[Part], sides: Mapping[str, Any], label: str | None, seed: int
) -> FactsPlace:
    """Where what is found out of these images, in this order and with these labels, is kept."""
    rows_of_sides = [(side, rows._fingerprint) for side, rows in sides.items()]
    text = json.dumps([[part.sha256 for part in shards], rows_of_sides, label, seed])
    of = hashlib.sha256(text.encode()).hexdigest()
    return FactsPlace(_cache() / f"facts-{of[:16]}", of)


@contextmanager
def _quiet_and(*, offline: bool) -> Iterator[None]:
    """Without progress bars where nobody sees them, and without a download for a stage."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE, datasets.are_progress_bars_disabled()
    datasets.config.HF_HUB_OFFLINE = before[0] or offline
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before[0]
        if not before[1]:
            datasets.enable_progress_bars()


def _load(config: DataConfig) -> Mapping[str, Any]:
    """The splits by name."""
    import datasets

    root, path = config.root, user_path("--data.root", config.root)
    try:
        if path.is_dir():
            if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
                loaded = datasets.load_from_disk(path)
            else:
                loaded = datasets.load_dataset(str(path))
        elif path.is_file():
            if path.suffix.lower() not in _BUILDERS:
                raise ValueError("a file that is neither .parquet nor .arrow")
            loaded = datasets.load_dataset(_BUILDERS[path.suffix.lower()], data_files=str(path))
        else:
            named = None if path.suffix.lower() in _BUILDERS else _ON_THE_HUB.fullmatch(root)
            if named is None:
                raise ValueError("no such file or folder")
            loaded = datasets.load_dataset(named["name"], named["subset"])
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        why = " ".join(str(error.__cause__ or error).split())[:300]
        raise UserError(
            f"--data.root {root}: {why}; expected a parquet file, a folder of them or of "
            f"save_to_disk, or a name on the Hub as OWNER/NAME or OWNER/NAME:SUBSET"
        ) from error
    return {"train": loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)


def _sides(splits: Mapping[str, Any], config: DataConfig) -> dict[str, Any]:
    known = [
        (_SIDES[name.lower()], rows) for name, rows in splits.items() if name.lower() in _SIDES
    ]
    sides = dict(known)
    if "train" not in sides or len(sides) < len(known):
        raise UserError(
            f"--data.root {config.root}: the splits {some_of([*splits])}, expected train, and "
            f"perhaps validation and test, each once"
        )
    return sides


def _image_column(features: Mapping[str, Any], config: DataConfig) -> str:
    import datasets

    arrays = (datasets.Array2D, datasets.Array3D)
    by_rank = (
        [name for name, kind in features.items() if isinstance(kind, datasets.Image)],
        [name for name, kind in features.items() if isinstance(kind, arrays)],
        [name for name, kind in features.items() if _may_hold_files(kind)],
    )
    found = next((names for names in by_rank if names), [])
    chosen = _chosen(found, features, config.image_column, "--data.image_column", config)
    if chosen is None:
        raise UserError(
            f"--data.root {config.root}: none of the columns {some_of([*features])} is one of "
            f"images; say which one with --data.image_column"
        )
    return chosen


def _label_column(features: Mapping[str, Any], config: DataConfig) -> str | None:
    import datasets

    found = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if not found:
        found = [
            name
            for name, kind in features.items()
            if name.lower() in _LABEL_NAMES and isinstance(kind, datasets.Value)
        ]
    return _chosen(found, features, config.label_column, "--data.label_column", config)


def _chosen(
    found: Sequence[str],
    features: Mapping[str, Any],
    given: str | None,
    flag: str,
    config: DataConfig,
) -> str | None:
    if given is not None and given not in features:
        raise UserError(f"{flag} {given}: expected one of {some_of([*features])}")
    if given is None and len(found) > 1:
        raise UserError(
            f"--data.root {config.root}: {some_of(found)} could each be meant; say which one with "
            f"{flag}"
        )
    return given or (found[0] if found else None)


def _may_hold_files(kind: Any) -> bool:
    """Whether a column of no image type can hold what an image file holds."""
    return getattr(kind, "dtype", None) == "binary" or (
        isinstance(kind, dict) and set(kind) == {"bytes", "path"}
    )


def _images(
    sides: Mapping[str, Any], column: str, config: DataConfig
) -> tuple[dict[str, Any], DataConfig, tuple[Any, ...], list[Part]]:
    """The images of each side, the settings that they settled, what they were used as, shards."""
    import datasets

    kind = sides["train"].features[column]
    if isinstance(kind, datasets.Array2D | datasets.Array3D):
        arrays = {
            f"{side}_images": np.array(rows.with_format("numpy")[column][:]).astype(kind.dtype)
            for side, rows in sides.items()
        }
        return arrays, config, (), []
    try:
        looks = {side: _looks(rows, column, config) for side, rows in sides.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"--data.root {config.root}: the column {column} holds no image files ({error}); say "
            f"which one does with --data.image_column"
        ) from error
    config = settle(config, looks["train"])
    channels = common_channels(
        Looks(
            has_colour=any(each.has_colour for each in looks.values()),
            has_alpha=any(each.has_alpha for each in looks.values()),
        ),
        config,
    )
    read, shards = _read_all(sides, column, channels, config)
    made: dict[str, Any] = {}
    for side, each_side in read.items():
        if named := [f"row {row} ({why})" for row, why in each_side.unreadable.items()]:
            raise UserError(
                f"--data.root {config.root}: can't read {some_of(named)} of {side}; mend the data "
                f"set"
            )
        made[f"{side}_images"] = each_side.pixels
    fates = (
        ((side, row), each) for side, of_side in read.items() for row, each in of_side.fates.items()
    )
    return made, config, tallied(fates, lambda at: f"{at[0]}[{at[1]}]"), shards


def _read_all(
    sides: Mapping[str, Any], column: str, channels: int, config: DataConfig
) -> tuple[dict[str, Read], list[Part]]:
    """The images of each side: in memory, or where there are many in shards, and those."""
    height, width = config.size
    num_bytes = sum(map(len, sides.values())) * channels * height * width
    if num_bytes > cache.IN_MEMORY_BYTES:
        try:
            kept = {side: _kept(rows, column, channels, config) for side, rows in sides.items()}
            shards = [part for each in kept.values() for part in each.shards]
            return {side: each.read for side, each in kept.items()}, shards
        except OSError as error:
            say(f"{_cache()}: decoded images can't be kept there ({error}), only in memory")
    read = {
        side: read_in_memory([Source(file) for file in _files(rows, column)], channels, config)
        for side, rows in sides.items()
    }
    return read, []


def _kept(rows: Any, column: str, channels: int, config: DataConfig) -> RowImages:
    def files(chosen: Sequence[int]) -> Sequence[io.BytesIO | Path]:
        return _files(rows.select(chosen), column)

    fingerprint = f"{rows._fingerprint}-{column}"
    return read_rows(_cache(), fingerprint, len(rows), files, channels, config)


def _cache() -> Path:
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / "vaekit"


def _looks(rows: Any, column: str, config: DataConfig) -> Looks:
    """What the images of all rows have in common; some thousand files at a time."""
    asked = asks_border(len(rows))

    def pages() -> Iterator[NDArray[Any]]:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = range(start, min(start + ROWS_AT_ONCE, len(rows)))
            files = _files(rows.select(some), column)
            borders = asked[some.start : some.stop].tolist()
            yield survey(files, config, with_border=borders).pages[:]

    return looks_of(pages())


def _files(rows: Any, column: str) -> list[io.BytesIO | Path]:
    """What each row holds of an image file, or where that lies."""
    import datasets

    cells = rows.select_columns(column).cast_column(column, datasets.Image(decode=False))[column]
    return [
        Path(cell["path"]) if cell["bytes"] is None else io.BytesIO(cell["bytes"]) for cell in cells
    ]
