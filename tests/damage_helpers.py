"""What the tests of damaged and hostile files share."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vaekit.cli import main

Snapshot = dict[str, bytes | str]
Damage = Callable[[Path], None]
Refused = Callable[..., str]  # the fixture `refused`


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def header_flipped(path: Path) -> None:
    flip(path, 3, bit=7)


def data_flipped(path: Path) -> None:
    flip(path, path.stat().st_size * 2 // 3, bit=7)


def deleted(path: Path) -> None:
    path.unlink()


def made_a_folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def made_a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def made_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: list[Damage] = [
    truncated,
    emptied,
    header_flipped,
    data_flipped,
    deleted,
    made_a_folder,
    made_a_dangling_link,
    made_a_pipe,
]


def flip(path: Path, offset: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def snapshot(folder: Path) -> Snapshot:
    """The names of all that lies in a folder, with what is in the files."""
    found: Snapshot = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = "folder" if path.is_dir() else "neither file nor folder"
    return found


def copy(run: Path, place: Path) -> Path:
    """A run that a test may damage."""
    shutil.copytree(run, place)
    return place


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a command that must be refused with code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("vaekit: error:")]
    assert "Traceback" not in said
    assert stop.value.code == 2
    assert len(errors) == 1
    return errors[0]
