"""JSON sealed with its own sha256, so that any damage shows."""

import hashlib
from pathlib import Path
from typing import Any

from vaekit.storage.damage import Damaged
from vaekit.storage.files import json_text, read_json, write_json


def write_sealed(path: Path, metadata: dict[str, Any]) -> None:
    """`write_json` of `metadata` with the sha256 of their text."""
    write_json(path, {**metadata, "sha256": _sha256(metadata)})


def read_sealed(path: Path, *, version: int) -> dict[str, Any]:
    """What `write_sealed` wrote with this `format_version`.

    Raises `Damaged` where it is something else.
    """
    metadata = read_json(path)
    if not isinstance(metadata, dict) or metadata.get("format_version") != version:
        raise Damaged(f"expected format version {version}")
    require_seal(path, metadata)
    return metadata


def require_seal(path: Path, metadata: dict[str, Any]) -> None:
    """Raise `Damaged` where the file is not, to the letter, what `write_sealed` wrote."""
    rest = {name: value for name, value in metadata.items() if name != "sha256"}
    try:
        content = json_text(metadata).encode()
        is_sealed = metadata.get("sha256") == _sha256(rest) and path.read_bytes() == content
    except (ValueError, RecursionError):  # NaN, or characters that UTF-8 has not: not ours
        is_sealed = False
    if not is_sealed:
        raise Damaged("damaged, its content does not match its sha256")


def _sha256(metadata: dict[str, Any]) -> str:
    return hashlib.sha256(json_text(metadata).encode()).hexdigest()
