"""metrics.jsonl: a row an epoch, row 0 before training."""

import json
from pathlib import Path
from typing import Any

from vaekit.storage.damage import Damaged, as_written, number, typed
from vaekit.storage.files import require_file, write_text

Row = dict[str, Any]


def write_metrics(path: Path, rows: list[Row]) -> None:
    """Replace the metrics; each row is one epoch."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_metrics(path: Path) -> list[Row]:
    """What `write_metrics` wrote. Raises `Damaged` where it is something else."""
    require_file(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise Damaged(f"damaged ({error})") from error
    with as_written():
        for epoch, row in enumerate(rows):
            _require_row_of(epoch, row)
    return rows


def _require_row_of(epoch: int, row: Any) -> None:
    """Raise what `as_written` reports where `row` is not the metrics of `epoch`."""
    if typed(row, dict)["epoch"] != epoch:
        raise ValueError(f"line {epoch + 1} is of epoch {row['epoch']!s:.20}")
    for part in ("loss", "reconstruction", "kl"):
        number(row[f"test_{part}"])
        if epoch > 0:
            number(row[f"train_{part}"])
        if "validation_loss" in row:
            number(row[f"validation_{part}"])
    if epoch > 0:
        number(row["seconds"])
    if not 0 <= typed(row.get("kept_epoch", epoch), int) <= epoch:
        raise ValueError(f"line {epoch + 1} keeps epoch {row['kept_epoch']}")
