"""MNIST and its kin: IDX files, downloaded where they are missing, checked before use."""

import gzip
import hashlib
import io
import socket
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.config import DataConfig
from vaekit.errors import UserError, say, some_of
from vaekit.storage.files import atomic_path, user_path, write_bytes

IMAGE_SIZE = 28
DOWNLOAD_TIMEOUT_SECONDS = 20.0
MAX_BYTES = 16 + 60_000 * IMAGE_SIZE**2  # of the largest file; nothing beyond is read or expanded


class IdxSet(NamedTuple):
    """A set of four IDX files, where torchvision puts them."""

    dataset: str  # torchvision's class and folder
    file_names: tuple[str, ...]
    sha256: tuple[str, ...]  # of each file


class IdxArrays(NamedTuple):
    """What the four files hold."""

    train_pixels: NDArray[np.uint8]  # [N, 28, 28]
    train_labels: NDArray[np.uint8]  # [N]
    test_pixels: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


_FILE_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IDX_SETS = {
    "mnist": IdxSet(
        "MNIST",
        _FILE_NAMES,
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion-mnist": IdxSet(
        "FashionMNIST",
        _FILE_NAMES,
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    # Hashes are published of the archives only, so these are what is kept and read.
    "kmnist": IdxSet(
        "KMNIST",
        tuple(f"{name}.gz" for name in _FILE_NAMES),
        (
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
    ),
}


def read_idx_set(config: DataConfig, download: bool) -> IdxArrays:
    """One of `IDX_SETS`, its missing files downloaded first where that is wanted.

    Raises `UserError` for files that are missing still, and that are not the published ones.
    """
    idx_set = IDX_SETS[config.name]
    root = user_path("--data.root", config.root)
    folder = root / idx_set.dataset / "raw"
    missing = [name for name in idx_set.file_names if not (folder / name).is_file()]
    if missing and not download:
        raise UserError(f"{folder}: no {', '.join(missing)}; copy them there")
    if len(missing) == len(idx_set.file_names) and (own := _own_files(root)):
        raise UserError(
            f"--data.root {root}: {some_of(own)} lie there, {config.name} "
            f"is read from {folder}; give --data.name idx for a set of your own"
        )
    if missing:
        _download(idx_set, folder, missing)
    return IdxArrays(
        *(
            _read_file(folder / name, sha256)
            for name, sha256 in zip(idx_set.file_names, idx_set.sha256, strict=True)
        )
    )


def _own_files(root: Path) -> list[str]:
    from vaekit.images.idx_files import headers  # with Pillow, which no published set needs

    return [file.path.name for file in headers(root)]


def _download(idx_set: IdxSet, folder: Path, missing: list[str]) -> None:
    """Fetch the missing files from torchvision's mirrors, each archive checked by its md5."""
    say(f"downloading {len(missing)} files of {idx_set.dataset} into {folder}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)  # torchvision sets none
    try:
        for name in missing:
            archive = name.removesuffix(".gz") + ".gz"
            _download_archive(idx_set, folder, archive)
            if name != archive:
                write_bytes(folder / name, _expand(_read_bounded(folder / archive)))
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"{folder}: {len(missing)} of the {len(idx_set.file_names)} files expected are missing "
            f"({', '.join(missing)}) and the download failed ({error}); copy them there, or use "
            f"--data.name digits, which needs no download"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _download_archive(idx_set: IdxSet, folder: Path, archive: str) -> None:
    from torchvision import datasets  # seconds to import, and only a download needs it
    from torchvision.datasets.utils import check_integrity, download_url

    dataset = getattr(datasets, idx_set.dataset)
    md5 = dict(dataset.resources)[archive]
    if check_integrity(folder / archive, md5):
        return
    *mirrors, last_mirror = dataset.mirrors
    with atomic_path(folder / archive) as temporary:
        for mirror in mirrors:
            try:
                download_url(mirror + archive, folder, temporary.name, md5)
                return
            except (RuntimeError, OSError) as error:
                say(f"{mirror}{archive}: {error}; trying the next mirror")
        download_url(last_mirror + archive, folder, temporary.name, md5)


def _read_file(path: Path, sha256: str) -> NDArray[np.uint8]:
    """The array of an IDX file of bytes: images [N, 28, 28] or labels [N], by its name."""
    content = _read_bounded(path)
    found = hashlib.sha256(content).hexdigest()
    fault = None if found == sha256 else f"sha256 {found}, expected {sha256}"
    image_shape = (IMAGE_SIZE,) * 2 if "idx3" in path.name else ()
    if path.suffix != ".gz":
        fault = _fault(content, image_shape) or fault  # says more than a hash does
    elif fault is None:
        content = _expand(content)
    if fault is not None:
        raise UserError(
            f"{path}: {fault}, as published; for a set of your own give --data.name idx and its "
            f"folder as --data.root, else move the file away so that it is downloaded again"
        )
    values = np.frombuffer(content, np.uint8, offset=_header(image_shape).size)
    return values.reshape(-1, *image_shape).copy()  # PyTorch warns of read-only arrays


def _read_bounded(path: Path) -> bytes:
    """A file, or as much of it as shows that it is too long for one of these sets."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _expand(archive: bytes) -> bytes:
    """What is in a .gz file, or as much of it as shows that it is a bomb."""
    with gzip.open(io.BytesIO(archive)) as file:
        try:
            return file.read(MAX_BYTES + 1)
        except (EOFError, zlib.error) as error:
            raise OSError(f"a damaged archive ({error})") from error


def _header(image_shape: tuple[int, ...]) -> struct.Struct:
    """Magic number, number of items, and the sizes of an item, as big-endian integers."""
    return struct.Struct(f">{2 + len(image_shape)}I")


def _fault(content: bytes, image_shape: tuple[int, ...]) -> str | None:
    """What is wrong with the header or the length of an IDX file of bytes, if anything is."""
    header = _header(image_shape)
    magic = 0x0800 + 1 + len(image_shape)  # type code of unsigned bytes, number of dimensions
    if len(content) < header.size:
        return f"{len(content)} bytes, expected an IDX file"
    found_magic, num_items, *found_shape = header.unpack_from(content)
    if found_magic != magic:
        return f"begins with {found_magic:08x}, expected the {magic:08x} of an IDX file"
    if tuple(found_shape) != image_shape:
        return f"holds images of size {found_shape}, expected {list(image_shape)}"
    expected = header.size + num_items * int(np.prod(image_shape))
    if len(content) != expected:
        return f"{len(content)} bytes, expected {expected} by its header"
    return None
