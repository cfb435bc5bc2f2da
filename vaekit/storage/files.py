"""Files that are written whole or not at all, and their hashes."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaekit.errors import UserError
from vaekit.storage.damage import Damaged


def user_path(flag: str, text: str) -> Path:
    """The path that a user gave, its ~ put in full; raises `UserError`, naming `flag`."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{flag} {text}: no home folder is known for its ~; give the whole path"
        ) from error


def temporary_path(path: Path) -> Path:
    """Where `path` is written before it is renamed: beside it, hidden, with the same suffix."""
    return path.with_name(f".tmp-{path.name}")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` if the block succeeds and is removed if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    with errors_naming(path):
        temporary.unlink(missing_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            yield temporary
            temporary.chmod(mode)  # of the user's umask; safetensors writes files for one person
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)  # it survives a power cut from here on
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Have an `OSError` of the block, which is to write `path`, name that file.

    By itself that of a write names none, and others name the temporary file.
    """
    try:
        yield
    except OSError as error:
        if error.filename in (None, str(temporary_path(path))):
            error.filename = str(path)
        raise


def reserve(path: Path) -> None:
    """Have the disk set aside all bytes of a file that is to be written through a memory map.

    There a full disk would kill the process; here it is an `OSError`.
    """
    if sys.platform == "linux":
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def write_bytes(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and other programs: indented, without NaN."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """What `write_json` wrote. Raises `Damaged` where it is no JSON."""
    require_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"damaged, not JSON ({error})") from error


def require_file(path: Path) -> None:
    """Raise `Damaged` for what is no file: a folder, or a pipe, which would keep us waiting."""
    if not path.is_file():
        raise Damaged("no file")


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
