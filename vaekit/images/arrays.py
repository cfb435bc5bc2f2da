"""Arrays of one's own as an image set: .npz files named as MedMNIST's, and .npy files."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaekit.config import (
    IN_MEMORY,
    MAX_CHANNELS,
    MAX_IMAGE_SIZE,
    MIN_IMAGE_SIZE,
    DataConfig,
    parse_value_range,
)
from vaekit.errors import UserError, some_of
from vaekit.images.copies import digests, groups_of
from vaekit.images.decode import fit
from vaekit.images.image_set import Images, ImageSet
from vaekit.images.mapped import MappedImages, PixelArray, Which
from vaekit.images.reading import NUM_EXAMPLES, Reading, Tally
from vaekit.images.splits import FIXED_SEED, hold_out_a_tenth
from vaekit.images.survey import Looks, settle
from vaekit.images.values import to_8_bit
from vaekit.storage.files import user_path

SIDES = ("train", "val", "test")
KEYS = ("images", "labels", *(f"{side}_{kind}" for side in SIDES for kind in ("images", "labels")))
# Names that others give them, Keras first.
_SYNONYMS = {f"{kind}_{side}": f"{side}_{kind}s" for side in SIDES for kind in ("image", "label")}
_SYNONYMS |= {f"x_{side}": f"{side}_images" for side in SIDES}
_SYNONYMS |= {f"y_{side}": f"{side}_labels" for side in SIDES}
_SYNONYMS |= {"x": "images", "y": "labels"}

_EXPECTED = (
    f"expected an .npz file or a folder of .npy files with {', '.join(KEYS[2:])}, or with images "
    f"and labels, or images alone as one .npy file"
)


class RowNames(Sequence[str]):
    """The names of rows of an array, `NAME[ROW]`."""

    def __init__(self, name: str, rows: NDArray[np.int64]) -> None:
        self._name, self._rows = name, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, which: int) -> str: ...

    @overload
    def __getitem__(self, which: Which) -> "RowNames": ...

    def __getitem__(self, which: int | Which) -> "str | RowNames":
        if isinstance(which, slice | np.ndarray):
            return RowNames(self._name, self._rows[which])
        return f"{self._name}[{self._rows[which]}]"


def read_arrays(config: DataConfig, seed: int) -> Images:
    """The arrays that `--data.root` names; nothing in them is unpickled.

    Raises `UserError` for files that are missing, damaged, or no arrays of images.
    """
    if config.root == IN_MEMORY:
        raise UserError(
            "the images were arrays in memory; give them to vaekit.train again, or save them with "
            "numpy.savez('set.npz', images=images, labels=labels) and give --data.root set.npz"
        )
    root = user_path("--data.root", config.root)
    arrays = _read(root)
    known = {_key(name): array for name, array in arrays.items() if _key(name) in KEYS}
    if len(known) < sum(_key(name) in KEYS for name in arrays):
        raise UserError(
            f"--data.root {root}: {some_of([*arrays])} name the same twice; {_EXPECTED}"
        )
    if not known:
        raise UserError(f"--data.root {root}: {some_of([*arrays]) or 'no arrays'}; {_EXPECTED}")
    left_out = [name for name in arrays if _key(name) not in KEYS]
    return assemble(known, config, seed, left_out=left_out)


def assemble(
    arrays: Mapping[str, Any],
    config: DataConfig,
    seed: int,
    class_names: tuple[str, ...] | None = None,
    left_out: Sequence[str] = (),
) -> Images:
    """One set from arrays by the names of `KEYS`.

    Images are [N, H, W], [N, H, W, C] or [N, C, H, W], or `MappedImages`, uint8 or with values that
    `--data.value_range` makes uint8; labels [N] or [N, 1], whole numbers
    (indices into `class_names` where those are given) or words. Of images without a test side a
    tenth is held out by `seed`. Images of another size than the settings say are resized. The
    order is kept, but for a `limit`, which is to be a fair choice. `left_out` are names of arrays
    that are not used.
    """
    root = config.root
    if "images" in arrays and len({*arrays} - {"images", "labels"}):
        raise UserError(f"--data.root {root}: {some_of([*arrays])}; {_EXPECTED}")
    sides = {"train": "images"} if "images" in arrays else {s: f"{s}_images" for s in SIDES}
    if sides["train"] not in arrays:
        raise UserError(f"--data.root {root}: {some_of([*arrays])}; {_EXPECTED}")
    planes = {
        side: channels_first(arrays[name], name, root)
        for side, name in sides.items()
        if name in arrays
    }
    config = _settled(config, planes["train"], sides["train"])
    remarks = _remarks(planes["train"], config)
    used_otherwise, pixels = [], {}
    for side, each in planes.items():
        pixels[side], num_beyond = _prepared(each, config)
        used_otherwise.append(
            Tally(f"{sides[side]} with values beyond {config.value_range}, clipped", num_beyond)
        )
    _require_one_kind(pixels, root)
    labels = {
        side: _labels(arrays[label_name], label_name, len(pixels[side]), root)
        for side in pixels
        if (label_name := sides[side].replace("images", "labels")) in arrays
    }
    class_names, indices = _classes(labels, pixels.keys(), class_names, root)
    made = {
        side: ImageSet(
            each,
            indices.get(side),
            RowNames(sides[side], np.arange(len(each)))
            if isinstance(each, MappedImages)
            else tuple(f"{sides[side]}[{row}]" for row in range(len(each))),
        )
        for side, each in pixels.items()
    }
    if config.limit is not None:
        made = {side: _shuffled(each) for side, each in made.items()}
    if "test" not in made:
        made |= _split(made["train"], root, seed)
    others = Tally("arrays by other names", len(left_out), tuple(left_out[:NUM_EXAMPLES]))
    reading = Reading(
        left_out=(others,), used_otherwise=tuple(used_otherwise), remarks=tuple(remarks)
    )
    return Images(made["train"], made["test"], class_names, made.get("val"), reading, config)


def _key(name: str) -> str:
    return _SYNONYMS.get(name.lower(), name.lower())


def _read(root: Path) -> dict[str, NDArray[Any]]:
    if root.is_dir():
        return {path.stem: _read_npy(path) for path in sorted(root.glob("[!.]*.npy"))}
    if not root.is_file():
        raise UserError(f"--data.root {root}: no such file or folder; {_EXPECTED}")
    if root.suffix.lower() == ".npy":
        return {"images": _read_npy(root)}
    if root.suffix.lower() == ".npz":
        return dict(_read_npz(root))
    raise UserError(f"--data.root {root}: {_EXPECTED}")


def _read_npy(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = _loaded(path, lambda: np.load(path, mmap_mode="c", allow_pickle=False))
    return array


def _read_npz(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    with (
        path.open("rb") as opened,  # which numpy would leave open where it fails
        _loaded(path, lambda: np.load(opened, allow_pickle=False)) as file,
    ):
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise UserError(f"--data.root {path}: no .npz file; {_EXPECTED}")
        for name in file.files:
            if _key(name) in KEYS:
                yield name, _loaded(path, lambda name=name: file[name])  # type: ignore[misc]
            else:
                yield name, np.empty(0)


def _loaded(path: Path, load: Callable[[], Any]) -> Any:
    """What numpy loads. Raises `UserError` where it can't, or would have to unpickle."""
    try:
        return load()
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        pickled = any(
            words in str(error) for words in ("pickle", "Object arrays", "Python objects")
        )
        why = "holds Python objects, which could run code" if pickled else f"damaged ({error})"
        raise UserError(
            f"--data.root {path}: {why}; save arrays of whole numbers with numpy.savez or "
            f"numpy.save"
        ) from error


def channels_first(array: Any, name: str, root: str) -> Any:
    """Images [N, C, H, W] of whatever values; mapped ones are so already."""
    if isinstance(array, MappedImages):
        return array
    channels = range(1, MAX_CHANNELS + 1)
    if array.dtype.kind not in "uif":
        raise UserError(
            f"--data.root {root}: {name} is {array.dtype}, expected uint8 from 0 to 255; give "
            f"255 * {name}.astype('uint8') where it is bool"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(
            f"--data.root {root}: {name} holds NaN or infinite values; replace them with numbers"
        )
    if array.ndim == 3:
        planes = array[:, None]
    elif array.ndim == 4 and array.shape[3] in channels:
        planes = array.transpose(0, 3, 1, 2)
    elif array.ndim == 4 and array.shape[1] in channels:
        planes = array
    else:
        planes = np.empty(0)
    if 0 in planes.shape:
        raise UserError(
            f"--data.root {root}: {name} has the shape {list(array.shape)}, expected [N, H, W], "
            f"[N, H, W, C] or [N, C, H, W] with up to {MAX_CHANNELS} channels"
        )
    return planes


def _settled(config: DataConfig, planes: NDArray[Any], name: str) -> DataConfig:
    """The settings with the range of the values of the training images [N, C, H, W]."""
    if planes.dtype == np.uint8:
        return settle(config, Looks())
    low, high = float(planes.min()), float(planes.max())
    is_float = planes.dtype.kind == "f"
    return settle(config, Looks(num_deep=1, low=low, high=high, is_float=is_float))


def _prepared(planes: Any, config: DataConfig) -> tuple[PixelArray, int]:
    """Images of any size and values as uint8 [N, C, H, W], and how many have values beyond."""
    if isinstance(planes, MappedImages):
        return planes, 0
    height, width = config.size
    channels = planes.shape[1]
    if planes.dtype == np.uint8 and planes.shape[2:] == (height, width):
        return np.ascontiguousarray(planes), 0
    low, high = parse_value_range(config.value_range)
    prepared = np.empty((len(planes), channels, height, width), np.uint8)
    num_beyond = 0
    for row, image in enumerate(planes):
        if image.dtype != np.uint8:
            num_beyond += bool((image < low).any() or (image > high).any())
            image = to_8_bit(image, low, high)
        if image.shape[1:] == (height, width):
            prepared[row] = image
        else:
            drawn = Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0).copy())
            prepared[row] = fit(drawn, (channels, height, width), config.fit, config.background)
    return prepared, num_beyond


def _require_one_kind(pixels: Mapping[str, PixelArray], root: str) -> None:
    channels = {side: each.shape[1] for side, each in pixels.items()}
    if len({*channels.values()}) > 1:
        found = ", ".join(f"{number} in {side}_images" for side, number in channels.items())
        raise UserError(f"--data.root {root}: {found} channels; expected as many in all")


def _labels(array: NDArray[Any], name: str, count: int, root: str) -> NDArray[Any]:
    """Labels [count], as they are: whole numbers or words."""
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if labels.shape != (count,):
        raise UserError(
            f"--data.root {root}: {name} has the shape {list(array.shape)}, expected one label for "
            f"each of {count} images, [{count}] or [{count}, 1]"
        )
    if labels.dtype.kind not in "iubU":
        raise UserError(
            f"--data.root {root}: {name} is {array.dtype}, expected whole numbers or words, a "
            f"class each; leave it out to train without labels"
        )
    return labels


def _classes(
    labels: Mapping[str, NDArray[Any]],
    sides: Any,
    class_names: tuple[str, ...] | None,
    root: str,
) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """The names of the classes, and each label as an index into them."""
    labelled = {side: each for side, each in labels.items() if not _is_unknown(each)}
    if not labelled:
        return (), {}
    if unlabelled := [side for side in sides if side not in labelled]:
        raise UserError(
            f"--data.root {root}: {', '.join(unlabelled)} without labels beside "
            f"{', '.join(labelled)} with labels; give labels to all, or to none"
        )
    if class_names is None:
        classes = np.unique(labelled["train"])
        class_names = tuple(str(value) for value in classes.tolist())
    else:
        classes = np.arange(len(class_names))
    indices = {}
    for side, each in labelled.items():
        if unknown := sorted({*each.tolist()} - {*classes.tolist()}):
            raise UserError(
                f"--data.root {root}: {some_of([str(value) for value in unknown])} in "
                f"{side}_labels is not among the classes of train_labels; each class needs "
                f"training images"
            )
        indices[side] = np.searchsorted(classes, each).astype(np.int64)
    return class_names, indices


def _is_unknown(labels: NDArray[Any]) -> bool:
    """Whether labels are the -1 that stands for none."""
    return labels.dtype.kind == "i" and bool((labels == -1).all())


def _shuffled(side: ImageSet) -> ImageSet:
    return side.take(np.random.default_rng(FIXED_SEED).permutation(len(side.pixels)))


def _split(side: ImageSet, root: str, seed: int) -> dict[str, ImageSet]:
    classes = np.zeros(len(side.pixels), np.int64) if side.labels is None else side.labels
    chosen = hold_out_a_tenth(classes, groups_of(digests(side.pixels)), seed, root)
    return {"train": side.take(chosen.kept), "test": side.take(chosen.held_out)}


def _remarks(planes: NDArray[Any], config: DataConfig) -> Iterator[str]:
    """What is done to every image."""
    if planes.dtype != np.uint8:
        yield f"values are {planes.dtype}: {config.value_range} become black and white"
    if planes.shape[2:] != config.size:
        (height, width), (new_height, new_width) = planes.shape[2:], config.size
        flag = height if height == width else f"{height},{width}"
        can_be_kept = all(MIN_IMAGE_SIZE <= side <= MAX_IMAGE_SIZE for side in (height, width))
        hint = f"; --data.image_size {flag} keeps them" if can_be_kept else ""
        yield f"images of {height}x{width} pixels are resized to {new_height}x{new_width}{hint}"
