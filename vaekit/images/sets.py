"""The image sets by name, and what of one is used for what.

Pillow is imported by the sets that need it: to train on images at hand takes none.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.config import DataConfig
from vaekit.errors import UserError
from vaekit.images.copies import digests, groups_of
from vaekit.images.facts import Facts, as_values, facts_from
from vaekit.images.idx import IMAGE_SIZE, read_idx_set
from vaekit.images.image_set import Images, ImageSet
from vaekit.images.preparation import RESIZE_FILTER, Centring, Preparation
from vaekit.images.ranks import ALONE, Ranks
from vaekit.images.reading import Reading
from vaekit.images.splits import FIXED_SEED, Split, split, split_groups
from vaekit.storage.files import user_path


@dataclass(frozen=True)
class Entry:
    """What is known of an image set before it is loaded."""

    load: Callable[[DataConfig, int, bool, Ranks], Images]  # see `load_images`
    size: int | None  # pixels a side of all its images; None: what the settings say
    class_names: tuple[str, ...]  # (): what is found in the files
    preparation: Preparation


def load_images(
    config: DataConfig, seed: int, *, download: bool = True, ranks: Ranks = ALONE
) -> Images:
    """The image set that `config` names, downloaded or decoded where that is still to be done.

    The processes of a launch do that together, and must all call it with their `ranks`.

    `seed` splits a folder that has no train/ and test/ of its own; nothing else depends on it.
    With `holdout` the test set is that many images of the training set, a fixed choice with each
    class in proportion, and the real test set is left alone. With `validation` such a choice of
    what is left to train on becomes the validation set. `limit` comes last and keeps the first
    images of each set; no set is sorted by class, so the first are a fair choice (the
    images of a folder are put in one fixed shuffled order).

    Raises `UserError` for files that are missing, with `download` off those of a published set,
    too, and for files that are damaged or don't fit together.
    """
    entry = IMAGE_SETS[config.name]
    if config.reading == "auto":
        config = replace(config, reading="content")
    if entry.size not in (None, config.image_size):
        raise UserError(
            f"--data.image_size {config.image_size}: the images of {config.name} are "
            f"{entry.size}x{entry.size} and are not resized; leave the flag out"
        )
    return _with_facts(_cut(entry.load(config, seed, download, ranks), config), config, ranks)


def images_in_memory(
    images: NDArray[np.uint8], labels: ArrayLike | None, config: DataConfig, seed: int
) -> Images:
    """The image set of arrays, as `load_images` loads one that lies in a file.

    `images` are uint8 [N, H, W], [N, H, W, C] or [N, C, H, W], `labels` [N] whole numbers or words.
    A tenth is held out to test on, chosen by `seed`. Raises `UserError` for other arrays.
    """
    from vaekit.images.arrays import assemble

    arrays = {"images": images}
    if labels is not None:
        arrays["labels"] = np.asarray(labels)
    config = replace(config, reading="content") if config.reading == "auto" else config
    return _cut(assemble(arrays, config, seed), config)


def _cut(images: Images, config: DataConfig) -> Images:
    """What of a set is used, and for what: `holdout`, `validation` and `limit`."""
    if config.holdout is not None:
        images = _hold_out(images, config)
    if config.validation:
        images = _hold_out_validation(images, config)
    first = slice(config.limit)
    if config.limit is not None:
        kept = f"--data.limit {config.limit}: no more than the first so many of each side are used"
        images = replace(
            images, reading=replace(images.reading, remarks=(*images.reading.remarks, kept))
        )
    return replace(
        images,
        train=images.train.take(first),
        test=images.test.take(first),
        validation=images.validation and images.validation.take(first),
    )


def _with_facts(images: Images, config: DataConfig, ranks: Ranks) -> Images:
    """`images` with what was kept of them, or what rank 0 finds out now."""
    if images.facts_place is None:
        return images
    used = json.dumps([config.holdout, config.validation, config.limit])
    if ranks.index != 0:
        return replace(images, facts=facts_from(json.loads(ranks.share(""))))
    facts = images.facts_place.read(used)
    if facts is None:
        facts = Facts(images.sha256(), images.copies())
        images.facts_place.write(used, facts)
    ranks.share(json.dumps(as_values(facts)))
    return replace(images, facts=facts)


def count(images: Images) -> Reading:
    """What was read, with what can be counted of the images themselves."""
    train, validation, test = images.train, images.validation, images.test
    reading = replace(
        images.reading,
        num_train=len(train.pixels),
        num_validation=0 if validation is None else len(validation.pixels),
        num_test=len(test.pixels),
    )
    is_own = images.data is not None and not IMAGE_SETS[images.data.name].class_names
    if not is_own:  # a published set is as it is
        return reading
    copies = images.copies()
    return replace(
        reading,
        num_copies=copies.within,
        num_test_in_train=copies.test_in_train,
        num_validation_in_train=copies.validation_in_train,
        num_in_two_classes=copies.in_two_classes,
        classes_without_train=_absent(images.class_names, train),
        classes_without_validation=_absent(images.class_names, validation),
        classes_without_test=_absent(images.class_names, test),
    )


def _absent(class_names: tuple[str, ...], images: ImageSet | None) -> tuple[str, ...]:
    """The classes of which a side, if there is one, has no image."""
    if images is None or images.labels is None:
        return ()
    counts = np.bincount(images.labels, minlength=len(class_names)).tolist()
    return tuple(name for name, number in zip(class_names, counts, strict=True) if not number)


def _load_idx_set(config: DataConfig, _seed: int, download: bool, ranks: Ranks) -> Images:
    with ranks.first_on_each_machine():
        arrays = read_idx_set(config, download)
    return Images(
        ImageSet(arrays.train_pixels[:, None], arrays.train_labels.astype(np.int64)),
        ImageSet(arrays.test_pixels[:, None], arrays.test_labels.astype(np.int64)),
        IMAGE_SETS[config.name].class_names,
        data=config,
    )


def _load_arrays(config: DataConfig, seed: int, _download: bool, _ranks: Ranks) -> Images:
    from vaekit.images.arrays import read_arrays

    return read_arrays(config, seed)


def _load_idx_files(config: DataConfig, seed: int, _download: bool, _ranks: Ranks) -> Images:
    from vaekit.images.idx_files import read_idx_files

    return read_idx_files(config, seed)


def _load_data_set(config: DataConfig, seed: int, download: bool, ranks: Ranks) -> Images:
    from vaekit.images.huggingface import read_data_set

    with ranks.first_on_each_machine():
        return read_data_set(config, seed, download)


def _load_digits(config: DataConfig, _seed: int, _download: bool, _ranks: Ranks) -> Images:
    from vaekit.images.digits import read_digits

    pixels, labels, fifth = read_digits(config.size)
    digits = ImageSet(pixels, labels)
    return Images(digits.take(fifth.kept), digits.take(fifth.held_out), _DIGITS, data=config)


def _load_folder(config: DataConfig, seed: int, _download: bool, ranks: Ranks) -> Images:
    from vaekit.images.cache import read_folder

    _require_no_file(config)
    folder = read_folder(config, seed, ranks)
    every_image = ImageSet(folder.pixels, folder.labels, folder.files)
    train, validation, _ = np.cumsum(folder.num_on_side).tolist()
    return Images(
        every_image.take(slice(train)),
        every_image.take(slice(validation, None)),
        folder.class_names,
        every_image.take(slice(train, validation)) if validation > train else None,
        folder.reading,
        folder.data,
        folder.facts_place,
    )


def _require_no_file(config: DataConfig) -> None:
    """Raise `UserError` for the root of a folder that is a file, with what takes such a file."""
    root = user_path("--data.root", config.root)
    if not root.is_file():
        return
    suffix = root.suffix.lower()
    if suffix in _NAMES:
        remedy = f"give --data.name {_NAMES[suffix]}"
    elif suffix == ".csv":
        remedy = (
            "save its pixels with numpy.savez as images, uint8 [N, H, W], and labels, and give "
            "--data.name arrays"
        )
    else:
        remedy = "unpack an archive, and give the folder of an image"
    raise UserError(f"--data.root {root}: a file, expected a folder of image files; {remedy}")


def _hold_out(images: Images, config: DataConfig) -> Images:
    assert config.holdout is not None
    chosen = _held_out_of(images.train, config.holdout, f"--data.holdout {config.holdout}", config)
    return replace(
        images, train=images.train.take(chosen.kept), test=images.train.take(chosen.held_out)
    )


def _hold_out_validation(images: Images, config: DataConfig) -> Images:
    """`validation` is a number of training images, or with less than 1 a share of them."""
    wanted = config.validation
    flag = f"--data.validation {wanted:g}"
    if images.validation is not None:
        raise UserError(
            f"{flag}: the set has a validation set of its own, of {len(images.validation.pixels)} "
            f"images; leave the flag out"
        )
    num_train = len(images.train.pixels)
    num_held_out = max(1, round(wanted * num_train)) if wanted < 1 else int(wanted)
    chosen = _held_out_of(images.train, num_held_out, flag, config)
    return replace(
        images,
        train=images.train.take(chosen.kept),
        validation=images.train.take(chosen.held_out),
    )


def _held_out_of(images: ImageSet, num_held_out: int, flag: str, config: DataConfig) -> Split:
    """A fixed choice with each class in proportion, equal images on one side."""
    pixels, labels, _ = images
    if num_held_out >= len(pixels):
        raise UserError(
            f"{flag}: the training set has {len(pixels)} images, at least one of which must be "
            f"left; give at most {len(pixels) - 1}"
        )
    classes = np.zeros(len(pixels), np.int64) if labels is None else labels
    if config.reading == "suffix":
        return split(classes, num_held_out, FIXED_SEED)
    chosen = split_groups(classes, groups_of(digests(pixels)), num_held_out, FIXED_SEED)
    if not len(chosen.held_out):
        raise UserError(
            f"{flag}: no image can be held out without one that is equal, or with each class left "
            f"in training; leave the flag out"
        )
    return chosen


_NAMES = {".npz": "arrays", ".npy": "arrays", ".parquet": "datasets"}  # by suffix
_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_MNIST_BOX = 20  # pixels of the longer side of a digit; LeCun et al., The MNIST database
_BY_ITS_AUTHORS = Preparation(
    polarity="light on dark",
    resize_filter=None,
    centring=None,
    text="Light on black, {height}x{width} pixels, as the set's authors prepared them.",
)
_AS_IN_ARRAYS = Preparation(
    polarity="as in the files",
    resize_filter=RESIZE_FILTER,
    centring=None,
    text=(
        f"The whole image, resized to {{height}}x{{width}} pixels with a {RESIZE_FILTER} filter "
        "where it had others; its aspect is not kept."
    ),
)

IMAGE_SETS = {
    "mnist": Entry(
        load=_load_idx_set,
        size=IMAGE_SIZE,
        class_names=_DIGITS,
        preparation=Preparation(
            polarity="light on dark",
            resize_filter=None,
            centring=Centring(_MNIST_BOX, by="centre of mass"),
            text=(
                f"Light strokes on black. The ink is scaled, its aspect kept and its edges "
                f"smoothed, until its longer side has {_MNIST_BOX} pixels, and placed so that its "
                f"centre of mass lies in pixel ({IMAGE_SIZE // 2}, {IMAGE_SIZE // 2}) of "
                f"{IMAGE_SIZE}x{IMAGE_SIZE}, counted from 0."
            ),
        ),
    ),
    "fashion-mnist": Entry(
        load=_load_idx_set,
        size=IMAGE_SIZE,
        class_names=_CLOTHES,
        preparation=_BY_ITS_AUTHORS,
    ),
    "kmnist": Entry(
        load=_load_idx_set,
        size=IMAGE_SIZE,
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        preparation=_BY_ITS_AUTHORS,
    ),
    "digits": Entry(
        load=_load_digits,
        size=None,
        class_names=_DIGITS,
        preparation=Preparation(
            polarity="light on dark",
            resize_filter=RESIZE_FILTER,
            centring=Centring(box=None, by="bounding box"),
            text=(
                "Light strokes on black. The ink is scaled, its aspect kept, until its longer side "
                "has {height} pixels, and centred. The set's own images have 8x8 pixels (each the "
                "ink in a 4x4 block of a bitmap) and were resized to {height}x{width}."
            ),
        ),
    ),
    **{
        name: Entry(load=load, size=None, class_names=(), preparation=_AS_IN_ARRAYS)
        for name, load in (
            ("arrays", _load_arrays),
            ("idx", _load_idx_files),
            ("datasets", _load_data_set),
        )
    },
    "folder": Entry(
        load=_load_folder,
        size=None,
        class_names=(),
        preparation=Preparation(
            polarity="as in the files",
            resize_filter=RESIZE_FILTER,
            centring=None,
            text=(
                "The image, turned as its EXIF orientation says, is resized with a "
                f"{RESIZE_FILTER} filter: {{fit}}."
            ),
        ),
    ),
}
