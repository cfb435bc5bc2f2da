"""JSON sealed with its own sha256, so that any damage shows."""

import hashlib
from pathlib import Path
from typing import Any

from vaekit.storage.damage import Damaged, require_version
from vaekit.storage.files import json_text, read_json, write_json


def write_sealed(path: Path, metadata: dict[str, Any]) -> None:
    """`write_json` of `metadata` with the sha256 of their text, in the place of an earlier one."""
    write_json(path, _sealed(metadata))


def read_sealed(path: Path, *, version: int) -> dict[str, Any]:
    """What `write_sealed` wrote with this `format_version`.

    Raises `Damaged` where it is something else.
    """
    metadata = read_json(path)
    if not isinstance(metadata, dict):
        raise Damaged("no object")
    require_version(metadata.get("format_version"), version)
    require_seal(path, metadata)
    return metadata


def require_seal(path: Path, metadata: dict[str, Any]) -> None:
    """Raise `Damaged` where the file is not, to the letter, what `write_sealed` wrote."""
    try:
        is_sealed = path.read_bytes() == json_text(_sealed(metadata)).encode()
    except (ValueError, RecursionError):  # NaN, or characters that UTF-8 has not: not ours
        is_sealed = False
    if not is_sealed:
        raise Damaged("damaged, its content does not match its sha256")


def _sealed(metadata: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in metadata.items() if name != "sha256"}
    return {**rest, "sha256": hashlib.sha256(json_text(rest).encode()).hexdigest()}
