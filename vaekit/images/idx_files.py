"""IDX files of one's own, of any size, known by what they hold and by the side in their names."""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from vaekit.config import DataConfig
from vaekit.errors import UserError, some_of
from vaekit.images.arrays import assemble
from vaekit.images.image_set import Images
from vaekit.storage.files import user_path

_SIDES = {
    "train": "train", "training": "train", "t10k": "test", "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4"}  # LeCun's THE IDX FILE FORMAT
_CHUNK = 1 << 24  # bytes read at a time: a header may claim more than there is
_EXPECTED = (
    "expected IDX files as train-images-idx3-ubyte, train-labels-idx1-ubyte, "
    "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, .gz or not"
)


class _IdxFile(NamedTuple):
    path: Path
    kind: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def key(self) -> str:
        """What it holds, by the name that arrays have: labels have one dimension or two."""
        sides = [
            _SIDES[word] for word in re.split(r"[-_. ]", self.path.name.lower()) if word in _SIDES
        ]
        kind = "images" if len(self.shape) > 2 else "labels"
        return f"{sides[-1]}_{kind}" if sides else kind


def read_idx_files(config: DataConfig, seed: int) -> Images:
    """The IDX files in `--data.root`, or in the one folder below it that has any.

    Raises `UserError` where there are none, more than one for a purpose, or a damaged one.
    """
    root = user_path("--data.root", config.root)
    if not root.is_dir():
        what = "a file, expected the folder of" if root.is_file() else "no such folder;"
        raise UserError(f"--data.root {root}: {what} {_EXPECTED}")
    files = _one_a_purpose(_the_folder(root), root)
    arrays = {key: _read(file) for key, file in files.items()}
    return assemble(arrays, config, seed)


def _the_folder(root: Path) -> list[_IdxFile]:
    folders = [root, *sorted(path for path in root.glob("[!.]*") if path.is_dir())]
    folders += sorted(path for path in root.glob("[!.]*/raw") if path.is_dir())
    found = [files for folder in folders if (files := list(headers(folder)))]
    if not found:
        raise UserError(f"--data.root {root}: no IDX file; {_EXPECTED}")
    if len(found) > 1 and found[0][0].path.parent != root:
        names = some_of([str(files[0].path.parent) for files in found])
        raise UserError(f"--data.root {root}: IDX files in {names}; give one of these folders")
    return found[0]


def headers(folder: Path) -> Iterator[_IdxFile]:
    """The files in a folder that begin as IDX files do."""
    for path in sorted(folder.glob("[!.]*")):
        if not path.is_file():
            continue
        try:
            with _opened(path) as file:
                zero, kind, num_dimensions = file.read(2), *file.read(2)
                shape = np.frombuffer(file.read(4 * num_dimensions), ">u4")
        except (OSError, EOFError, ValueError, zlib.error):
            continue
        if zero == b"\0\0" and kind in _TYPES and len(shape) == num_dimensions > 0:
            yield _IdxFile(path, np.dtype(_TYPES[kind]), tuple(shape.tolist()))


def _opened(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path))
    return path.open("rb")


def _one_a_purpose(files: list[_IdxFile], root: Path) -> dict[str, _IdxFile]:
    """The files by what they hold; of one that lies there expanded and as .gz the former."""
    chosen: dict[str, _IdxFile] = {}
    for file in files:
        other = chosen.setdefault(file.key, file)
        same = other.path.name.removesuffix(".gz") == file.path.name.removesuffix(".gz")
        if other is not file and not same:
            raise UserError(
                f"--data.root {root}: {other.path.name} and {file.path.name} both hold the "
                f"{file.key.replace('_', ' ')}; leave one set in the folder"
            )
    return chosen


def _read(file: _IdxFile) -> NDArray[np.generic]:
    expected = file.kind.itemsize * int(np.prod(file.shape, dtype=object))
    content = bytearray()
    try:
        with _opened(file.path) as opened:
            opened.read(4 + 4 * len(file.shape))
            while chunk := opened.read(min(_CHUNK, expected + 1 - len(content))):
                content += chunk
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{file.path}: a damaged archive ({error}); put a good copy there"
        ) from error
    if len(content) != expected:
        more = "more than" if len(content) > expected else f"{len(content):,} of"
        raise UserError(
            f"{file.path}: {more} the {expected:,} bytes that its header claims for "
            f"{list(file.shape)}; put a good copy there"
        )
    array: NDArray[np.generic] = np.frombuffer(content, file.kind).reshape(file.shape)
    return array if file.kind.itemsize == 1 else array.astype(file.kind.newbyteorder("="))
