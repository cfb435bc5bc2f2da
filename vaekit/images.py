"""Image sets: each is one uint8 array [N, C, H, W], decoded once."""

import gzip
import hashlib
import json
import os
import shutil
import socket
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from vaekit.config import DataConfig
from vaekit.errors import UserError
from vaekit.files import atomic_path, file_sha256, write_json

CACHE_FOLDER = ".vaekit-cache"
CACHE_FORMAT_VERSION = 1
RESIZE_FILTER = "bilinear"
DOWNLOAD_TIMEOUT_SECONDS = 20.0
EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm",
)  # fmt: skip

_RESAMPLING = Image.Resampling[RESIZE_FILTER.upper()]
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_SPLIT_SEED = 0  # of the splits and orders that must not change with the seed of a run

# What Pillow raises for a file that is damaged, no image, or absurdly large.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

T = TypeVar("T")
R = TypeVar("R")


class ImageSet(NamedTuple):
    """Images with their labels."""

    pixels: NDArray[np.uint8]  # [N, C, H, W]; may be a memory map, whose file no write reaches
    labels: NDArray[np.int64] | None  # [N], indices into the class names


@dataclass(frozen=True)
class Images:
    """What a run trains on and what it is tested on."""

    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]  # () for an unlabelled set

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    def sha256(self) -> str:
        """The sha256 over pixels and labels of both sets: equal images, equal order."""
        digest = hashlib.sha256()
        for array in (*self.train, *self.test):
            if array is None:
                digest.update(b"unlabelled")
            else:
                digest.update(f"{array.dtype.str} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).reshape(-1).data)
        return digest.hexdigest()


def load_images(config: DataConfig, seed: int) -> Images:
    """The image set that `config` names, downloaded or decoded where that is still to be done.

    `seed` splits a folder that has no train/ and test/ of its own; nothing else depends on it.
    With `holdout` the test set is that many images of the training set, a fixed choice with each
    class in proportion, and the real test set is left alone. `limit` comes last and keeps the
    first images of each set; no set is sorted by class, so the first are a fair choice (the
    images of a folder are put in one fixed shuffled order).

    Raises `UserError` for files that are missing, damaged or don't fit together.
    """
    if config.name == "digits":
        images = _load_digits(config.image_size)
    elif config.name == "folder":
        images = _load_folder(config, seed)
    else:
        images = _load_idx(config)
    if config.holdout is not None:
        images = _hold_out(images, config.holdout)
    return Images(
        _first(images.train, config.limit), _first(images.test, config.limit), images.class_names
    )


def prepare_files(paths: Sequence[Path], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Image files as [N, C, H, W], prepared as those of a folder are, for a model of `shape`.

    The whole image is resized, its aspect not kept; EXIF orientation is applied. Raises
    `UserError` that lists the files that can't be read.
    """
    pixels: NDArray[np.uint8] = np.empty((len(paths), *shape), np.uint8)
    unreadable = _decode(paths, pixels, description="reading")
    if unreadable:
        raise UserError(
            f"{_some_of([str(paths[i]) for i in unreadable])}: no such file, or no image that "
            f"Pillow can read; leave it out or replace it"
        )
    return pixels


def _first(images: ImageSet, limit: int | None) -> ImageSet:
    return ImageSet(images.pixels[:limit], None if images.labels is None else images.labels[:limit])


def _hold_out(images: Images, num_images: int) -> Images:
    pixels, labels = images.train
    if num_images >= len(pixels):
        raise UserError(
            f"--data.holdout {num_images}: the training set has {len(pixels)} images, at least one "
            f"of which must be left; give at most {len(pixels) - 1}"
        )
    classes = np.zeros(len(pixels), np.int64) if labels is None else labels
    held = _sample_classes(classes, num_images, _SPLIT_SEED)
    kept = np.delete(np.arange(len(pixels)), held)
    train, test = (
        ImageSet(pixels[chosen], None if labels is None else labels[chosen])
        for chosen in (kept, held)
    )
    return Images(train, test, images.class_names)


def _sample_classes(labels: NDArray[np.int64], num: int, seed: int) -> NDArray[np.int64]:
    """Sorted indices [num]: a random sample with each class's share kept to within one.

    Evenly spaced picks from the items sorted by class; it takes any class sizes, down to one item.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    return np.sort(by_class[np.arange(num) * len(labels) // num])


def _load_digits(image_size: int) -> Images:
    from sklearn.datasets import load_digits  # seconds to import, and no other set needs it

    digits = load_digits()
    scaled = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 8x8, values 0 to 16
    size = (image_size, image_size)
    resized = [Image.fromarray(image).resize(size, _RESAMPLING) for image in scaled]
    pixels = np.stack([np.asarray(image) for image in resized])[:, None]
    labels = digits.target.astype(np.int64)
    test = _sample_classes(labels, round(0.2 * len(labels)), _SPLIT_SEED)
    train = np.delete(np.arange(len(labels)), test)
    return Images(
        ImageSet(pixels[train], labels[train]),
        ImageSet(pixels[test], labels[test]),
        tuple("0123456789"),
    )


class _IdxSet(NamedTuple):
    """A set of four IDX files, where torchvision puts them."""

    dataset: str  # torchvision's class and folder
    class_names: tuple[str, ...]
    file_names: tuple[str, ...]
    sha256: tuple[str, ...]  # of each file


_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_IDX_SETS = {
    "mnist": _IdxSet(
        "MNIST",
        tuple("0123456789"),
        _IDX_FILES,
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion-mnist": _IdxSet(
        "FashionMNIST",
        _FASHION_CLASSES,
        _IDX_FILES,
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    # Hashes are published of the archives only, so these are what is kept and read.
    "kmnist": _IdxSet(
        "KMNIST",
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        tuple(f"{name}.gz" for name in _IDX_FILES),
        (
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
    ),
}
_IDX_IMAGE_SIZE = 28


def _load_idx(config: DataConfig) -> Images:
    if config.image_size != _IDX_IMAGE_SIZE:
        raise UserError(
            f"--data.image_size {config.image_size}: the images of {config.name} are "
            f"{_IDX_IMAGE_SIZE}x{_IDX_IMAGE_SIZE} and are not resized; leave the flag out"
        )
    idx_set = _IDX_SETS[config.name]
    folder = Path(config.root).expanduser() / idx_set.dataset / "raw"
    missing = [name for name in idx_set.file_names if not (folder / name).is_file()]
    if missing:
        _download(idx_set, folder, missing)
    train_pixels, train_labels, test_pixels, test_labels = (
        _read_idx(folder / name, sha256)
        for name, sha256 in zip(idx_set.file_names, idx_set.sha256, strict=True)
    )
    return Images(
        ImageSet(train_pixels[:, None], train_labels.astype(np.int64)),
        ImageSet(test_pixels[:, None], test_labels.astype(np.int64)),
        idx_set.class_names,
    )


def _download(idx_set: _IdxSet, folder: Path, missing: list[str]) -> None:
    """Fetch the missing files from torchvision's mirrors; it checks the md5 of each archive."""
    _say(f"downloading {len(missing)} files of {idx_set.dataset} into {folder}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)  # torchvision sets none
    try:
        for name in missing:
            archive = name.removesuffix(".gz") + ".gz"
            _download_archive(idx_set, folder, archive)
            if name != archive:
                with atomic_path(folder / name) as temporary:
                    temporary.write_bytes(gzip.decompress((folder / archive).read_bytes()))
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"{folder}: {len(missing)} of the {len(idx_set.file_names)} files expected are missing "
            f"({', '.join(missing)}) and the download failed ({error}); copy them there, or use "
            f"--data.name digits, which needs no download"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _download_archive(idx_set: _IdxSet, folder: Path, archive: str) -> None:
    from torchvision import datasets  # seconds to import, and only a download needs it
    from torchvision.datasets.utils import download_url

    dataset = getattr(datasets, idx_set.dataset)
    md5 = dict(dataset.resources)[archive]
    *mirrors, last_mirror = dataset.mirrors
    for mirror in mirrors:
        try:
            download_url(mirror + archive, folder, md5=md5)
            return
        except (RuntimeError, OSError) as error:
            _say(f"{mirror}{archive}: {error}; trying the next mirror")
    download_url(last_mirror + archive, folder, md5=md5)


def _read_idx(path: Path, sha256: str) -> NDArray[np.uint8]:
    """The array of an IDX file of bytes: images [N, 28, 28] or labels [N], by its name."""
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    fault = None if found == sha256 else f"sha256 {found}, expected {sha256}"
    image_shape = (_IDX_IMAGE_SIZE,) * 2 if "idx3" in path.name else ()
    if path.suffix != ".gz":
        fault = _idx_fault(content, image_shape) or fault  # says more than a hash does
    elif fault is None:
        content = gzip.decompress(content)
    if fault is not None:
        raise UserError(
            f"{path}: {fault}; delete it so that it is downloaded again, or copy a good one there"
        )
    values = np.frombuffer(content, np.uint8, offset=_idx_header(image_shape).size)
    return values.reshape(-1, *image_shape).copy()  # PyTorch warns of read-only arrays


def _idx_header(image_shape: tuple[int, ...]) -> struct.Struct:
    """Magic number, number of items, and the sizes of an item, as big-endian integers."""
    return struct.Struct(f">{2 + len(image_shape)}I")


def _idx_fault(content: bytes, image_shape: tuple[int, ...]) -> str | None:
    """What is wrong with the header or the length of an IDX file of bytes, if anything is."""
    header = _idx_header(image_shape)
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


class _Files(NamedTuple):
    """Image files and their classes, all 0 in an unlabelled set."""

    paths: list[Path]
    labels: NDArray[np.int64]

    def take(self, indices: Iterable[int]) -> "_Files":
        chosen = list(indices)
        return _Files([self.paths[i] for i in chosen], self.labels[chosen])

    def shuffled(self) -> "_Files":
        return self.take(np.random.default_rng(_SPLIT_SEED).permutation(len(self.paths)))


class _Listing(NamedTuple):
    """The files of a folder before they are decoded."""

    class_names: tuple[str, ...]
    splits: dict[str, _Files]  # train and test


class _Decoded(NamedTuple):
    """The images of a folder, and the files that were left out."""

    images: Images
    unreadable: list[str]


def _load_folder(config: DataConfig, seed: int) -> Images:
    """A folder of image files, from the cache where the same files were decoded before.

    The channels are those that hold every file: grey or colour, with alpha or without. An image
    is resized whole to a square, its aspect not kept; EXIF orientation is applied.
    """
    root = Path(config.root).expanduser()
    listing = _list_folder(root, seed)
    cache = root / CACHE_FOLDER / _cache_key(root, listing, config)
    decoded = _read_cache(cache)
    if decoded is None:
        num_files = sum(len(files.paths) for files in listing.splits.values())
        _say(f"decoding {num_files} images of {root}")
        decoded = _decode_into_cache(root, listing, config, cache)
        num_decoded = num_files - len(decoded.unreadable)
        _say(f"decoded {num_decoded} images into shape {decoded.images.shape}")
    if decoded.unreadable:
        _say(f"{root}: going on without the unreadable {_some_of(decoded.unreadable)}")
    return decoded.images


def _list_folder(root: Path, seed: int) -> _Listing:
    if not root.is_dir():
        raise UserError(f"--data.root {root}: no such folder; {_layouts(root)}")
    train_root, test_root = root / "train", root / "test"
    if not train_root.is_dir() and not test_root.is_dir():
        return _split_listing(root, seed)
    for folder in (train_root, test_root):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; {_layouts(root)}")
    class_names, train = _scan(train_root, root)
    test_class_names, test = _scan(test_root, root)
    if bool(class_names) != bool(test_class_names):
        raise UserError(
            f"--data.root {root}: one of train and test has class folders, the other only images; "
            f"{_layouts(root)}"
        )
    unknown = sorted(set(test_class_names) - set(class_names))
    if unknown:
        raise UserError(
            f"{test_root}: {_some_of(unknown)} not among the classes of {train_root}; "
            f"each class needs training images"
        )
    if class_names:
        in_train = np.array([class_names.index(name) for name in test_class_names], np.int64)
        test = _Files(test.paths, in_train[test.labels])
    return _Listing(class_names, {"train": train.shuffled(), "test": test.shuffled()})


def _split_listing(root: Path, seed: int) -> _Listing:
    """One tree, a tenth of it held out for the test set."""
    class_names, files = _scan(root, root)
    num_files = len(files.paths)
    if num_files < 2:
        raise UserError(
            f"--data.root {root}: one image can't be split into a training and a test set; "
            f"add images"
        )
    held = _sample_classes(files.labels, max(1, round(0.1 * num_files)), seed)
    kept = np.delete(np.arange(num_files), held)
    train, test = files.take(kept), files.take(held)
    return _Listing(class_names, {"train": train.shuffled(), "test": test.shuffled()})


def _scan(folder: Path, root: Path) -> tuple[tuple[str, ...], _Files]:
    """Class names (none where images lie in `folder` itself) and files, in sorted order."""
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    class_folders = [path for path in visible if path.is_dir()]
    loose = [path for path in visible if _is_image_name(path.name) and not path.is_dir()]
    if not class_folders and not loose:
        raise UserError(f"{folder}: no images; {_layouts(root)}")
    if not class_folders:
        return (), _Files(loose, np.zeros(len(loose), np.int64))
    if loose:
        raise UserError(
            f"{folder}: {_some_of([path.name for path in loose])} beside class folders; "
            f"put each image into the folder of its class"
        )
    paths, labels = [], []
    for label, class_folder in enumerate(class_folders):
        found = _images_under(class_folder)
        if not found:
            raise UserError(f"{class_folder}: no images in this class; {_layouts(root)}")
        paths += found
        labels += [label] * len(found)
    return tuple(path.name for path in class_folders), _Files(paths, np.array(labels, np.int64))


def _images_under(folder: Path) -> list[Path]:
    found = []
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if _is_image_name(name)]
    return sorted(found)


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(EXTENSIONS)


def _layouts(root: Path) -> str:
    return (
        f"expected {root}/train/CLASS/*.png and {root}/test/CLASS/*.png, or {root}/CLASS/*.png, "
        f"or without classes {root}/train/*.png and {root}/test/*.png, or {root}/*.png "
        f"({', '.join(EXTENSIONS)})"
    )


def _cache_key(root: Path, listing: _Listing, config: DataConfig) -> str:
    """A hash of all that decides what is in the cache; of the files names, sizes and times."""
    facts = [
        CACHE_FORMAT_VERSION,
        RESIZE_FILTER,
        config.image_size,
        config.skip_unreadable,
        listing.class_names,
    ]
    for split, files in listing.splits.items():
        for path, label in zip(files.paths, files.labels.tolist(), strict=True):
            status = path.stat() if path.exists() else path.lstat()  # a dangling link
            name = path.relative_to(root).as_posix()
            facts.append([split, name, label, status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _read_cache(cache: Path) -> _Decoded | None:
    """What `_decode_into_cache` kept, memory-mapped; None where nothing is or it is damaged."""
    try:
        meta = json.loads((cache / "meta.json").read_text(encoding="utf-8"))
        if any(file_sha256(cache / name) != sha256 for name, sha256 in meta["sha256"].items()):
            return None
        return _open_cache(cache, tuple(meta["class_names"]), meta["unreadable"])
    except (OSError, ValueError, KeyError):
        return None


def _open_cache(cache: Path, class_names: tuple[str, ...], unreadable: list[str]) -> _Decoded:
    train, test = (
        ImageSet(
            np.load(cache / f"{split}_pixels.npy", mmap_mode="c"),
            np.load(cache / f"{split}_labels.npy") if class_names else None,
        )
        for split in ("train", "test")
    )
    return _Decoded(Images(train, test, class_names), unreadable)


def _decode_into_cache(root: Path, listing: _Listing, config: DataConfig, cache: Path) -> _Decoded:
    """Decode and keep the result at `cache`; in memory alone where it can't be written."""
    num_files = sum(len(files.paths) for files in listing.splits.values())
    try:
        cache.parent.mkdir(exist_ok=True)
        if cache.exists():  # damaged
            shutil.rmtree(cache)
        # A full disk would kill the process as it writes to the memory map.
        if shutil.disk_usage(cache.parent).free < num_files * max(_MODES) * config.image_size**2:
            raise OSError("too little free space")
        workplace = tempfile.TemporaryDirectory(dir=cache.parent, prefix=".tmp-")
    except OSError as error:
        _say(f"{cache.parent}: decoded images can't be kept there ({error}), only in memory")
        return _decode_listing(root, listing, config, folder=None)
    with workplace as temporary:
        folder = Path(temporary) / cache.name
        folder.mkdir()
        images, unreadable = _decode_listing(root, listing, config, folder)
        for split, labels in (("train", images.train.labels), ("test", images.test.labels)):
            if labels is not None:
                np.save(folder / f"{split}_labels.npy", labels)
        meta = {
            "format": "vaekit-images",
            "format_version": CACHE_FORMAT_VERSION,
            "image_size": config.image_size,
            "resize_filter": RESIZE_FILTER,
            "class_names": images.class_names,
            "unreadable": unreadable,
            "sha256": {path.name: file_sha256(path) for path in sorted(folder.glob("*.npy"))},
        }
        write_json(folder / "meta.json", meta)
        try:
            folder.rename(cache)
        except OSError:  # another process made the same one first
            if not cache.is_dir():
                raise
    return _open_cache(cache, images.class_names, unreadable)


def _decode_listing(
    root: Path, listing: _Listing, config: DataConfig, folder: Path | None
) -> _Decoded:
    """Decode every file, into .npy files in `folder` or else in memory.

    Where files are unreadable and to be skipped, all starts anew without them, since they may
    have had a say in the number of channels.
    """
    splits, unreadable = listing.splits, list[str]()
    while True:
        paths = [path for files in splits.values() for path in files.paths]
        shape = (_common_channels(paths), config.image_size, config.image_size)
        pixels, failed = {}, {}
        for split, files in splits.items():
            pixels[split] = _empty_pixels(folder, split, (len(files.paths), *shape))
            failed[split] = _decode(files.paths, pixels[split], f"decoding {split}")
            unreadable += [
                files.paths[i].relative_to(root).as_posix() for i in sorted(failed[split])
            ]
        if not any(failed.values()):
            break
        unreadable.sort()
        if not config.skip_unreadable:
            raise UserError(
                f"--data.root {root}: can't read {_some_of(unreadable)}; replace or delete them, "
                f"or leave them out with --data.skip_unreadable"
            )
        splits = {
            split: files.take(np.delete(np.arange(len(files.paths)), failed[split]))
            for split, files in splits.items()
        }
        for split, files in splits.items():
            if not files.paths:
                raise UserError(
                    f"--data.root {root}: none of the {split} images can be read "
                    f"({_some_of(unreadable)}); {_layouts(root)}"
                )
    train, test = (
        ImageSet(pixels[split], files.labels if listing.class_names else None)
        for split, files in splits.items()
    )
    return _Decoded(Images(train, test, listing.class_names), unreadable)


def _empty_pixels(folder: Path | None, split: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if folder is None:
        return np.empty(shape, np.uint8)
    pixels: NDArray[np.uint8] = np.lib.format.open_memmap(
        folder / f"{split}_pixels.npy", "w+", np.uint8, shape
    )
    return pixels


def _decode(paths: Sequence[Path], pixels: NDArray[np.uint8], description: str) -> list[int]:
    """Fill `pixels` [N, C, H, W] from N files; the indices of those that can't be read."""
    channels, height, width = pixels.shape[1:]

    def decode(index: int) -> bool:
        try:
            prepared = _prepare(paths[index], (channels, height, width))
        except _UNREADABLE:
            return False
        pixels[index] = prepared
        return True

    readable = _in_threads(decode, range(len(paths)), description)
    return [index for index, success in enumerate(readable) if not success]


def _prepare(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """One image file as [C, H, W]."""
    channels, height, width = shape
    with Image.open(path) as file:
        image = _to_8_bit(ImageOps.exif_transpose(file))
    image = image.convert(_MODES[channels]).resize((width, height), _RESAMPLING)
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


def _to_8_bit(image: Image.Image) -> Image.Image:
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError("expected integers of at most 16 bits")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _common_channels(paths: Sequence[Path]) -> int:
    """Channels that hold every image: grey or colour, plus alpha where one has it."""

    def colour_and_alpha(path: Path) -> tuple[bool, bool]:
        try:
            with Image.open(path) as image:
                is_deep = image.mode.startswith(("I", "F"))
                is_grey = is_deep or image.mode in ("1", "L", "LA")
                has_alpha = image.getbands()[-1] == "A" or "transparency" in image.info
                return not is_grey, has_alpha and not is_deep
        except _UNREADABLE:
            return False, False

    found = _in_threads(colour_and_alpha, paths, "reading headers")
    has_colour, has_alpha = np.any(found, axis=0).tolist()
    return (3 if has_colour else 1) + int(has_alpha)


def _in_threads(function: Callable[[T], R], items: Sequence[T], description: str) -> list[R]:
    """The results in order, with a progress bar where standard error is a terminal.

    Pillow releases the interpreter's lock while it decodes and resizes.
    """
    with warnings.catch_warnings(), ThreadPool(os.cpu_count()) as pool:
        warnings.simplefilter("ignore", UserWarning)  # Pillow's remarks on odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        results = pool.imap(function, items, chunksize=16)
        bar = tqdm(results, description, len(items), unit=" images", disable=None)
        return list(bar)


def _some_of(names: Sequence[str]) -> str:
    """The first five names and how many there are in all."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown}, ... ({len(names)} in all)"


def _say(line: str) -> None:
    print(f"vaekit: {line}", file=sys.stderr, flush=True)
