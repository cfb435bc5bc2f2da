"""The images of a folder: found, decoded, split in sides, and counted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vaekit.config import DataConfig, parse_value_range
from vaekit.errors import UserError, some_of
from vaekit.images.coded import Coded
from vaekit.images.copies import digests, groups_of
from vaekit.images.decode import Source, decode_files
from vaekit.images.facts import FactsPlace
from vaekit.images.folder import TEST, TRAIN, UNSPLIT, VALIDATION, Arrangement, arrange
from vaekit.images.formats import FIRST_SUFFIXES, REFUSED_SUFFIXES, suffixes
from vaekit.images.mapped import Mapped, PixelArray
from vaekit.images.reading import Reading, Tally, printable, tallied
from vaekit.images.splits import FIXED_SEED, hold_out_a_tenth
from vaekit.images.survey import Looks, Survey, common_channels, settle, survey
from vaekit.images.walk import Walk

FEWEST_LEVELS = 64  # that colours of 16 bits must have left in their upper 8
NOT_OF_8_BITS = "0,255"  # the range that no deep file has chosen


class Read(NamedTuple):
    """What became of N images."""

    pixels: PixelArray  # [N, C, H, W], of those that can't be read whatever
    unreadable: Coded  # [N], why
    fates: Coded  # [N], tuples of what each was used as, where not as it is
    digests: Callable[[], NDArray[np.uint64]]  # [N, 2], of the pixels


class Reader(Protocol):
    """Reads image files."""

    def survey(self, found: Walk, files: NDArray[np.int64], data: DataConfig) -> Survey:
        """What each of `files` [N] holds."""

    def decode(
        self,
        found: Walk,
        files: NDArray[np.int64],
        pages: NDArray[np.int32],
        channels: int,
        data: DataConfig,
    ) -> Read:
        """`pages` [N] of `files` [N], prepared as `data`, which is settled, says."""


class InMemory:
    """Reads all images into one array."""

    def survey(self, found: Walk, files: NDArray[np.int64], data: DataConfig) -> Survey:
        return survey([found.path(index) for index in files.tolist()], data)

    def decode(
        self,
        found: Walk,
        files: NDArray[np.int64],
        pages: NDArray[np.int32],
        channels: int,
        data: DataConfig,
    ) -> Read:
        each = zip(files.tolist(), pages.tolist(), strict=True)
        sources = [Source(found.path(index), page) for index, page in each]
        return read_in_memory(sources, channels, data)


def read_in_memory(sources: Sequence[Source], channels: int, data: DataConfig) -> Read:
    pixels = np.empty((len(sources), channels, *data.size), np.uint8)
    decoded = decode_files(sources, pixels, data, "decoding")
    return Read(pixels, *decoded, lambda: digests(pixels))


class FolderImages(NamedTuple):
    """The images of a folder: those to train on, to validate on, to test on."""

    class_names: tuple[str, ...]  # () for an unlabelled folder
    pixels: PixelArray  # [N, C, H, W]
    labels: NDArray[np.int64] | None  # [N]
    files: Sequence[str]  # [N], relative to the folder; of a later page with its number
    num_on_side: tuple[int, int, int]
    data: DataConfig  # with what the files settled
    reading: Reading
    facts_place: FactsPlace | None = None  # beside the index; None where they are in memory


class Collected(NamedTuple):
    """The images of a folder: those to train on, then those to validate on, then the others."""

    class_names: tuple[str, ...]  # () for an unlabelled folder
    pixels: PixelArray  # [N, C, H, W]
    labels: NDArray[np.int64]  # [N], 0 without classes
    files: NDArray[np.int64]  # [N], their places in the walk
    pages: NDArray[np.int32]  # [N]
    num_on_side: tuple[int, int, int]
    is_split: bool  # whether vaekit chose the sides, by the seed
    data: DataConfig  # with what the files settled
    reading: Reading  # without the counts that a split or a limit may still change


def folder_images(images: Collected, found: Walk) -> FolderImages:
    """What was collected, with labels and names by themselves."""
    return FolderImages(
        images.class_names,
        images.pixels,
        images.labels if images.class_names else None,
        page_names(found, images.files, images.pages),
        images.num_on_side,
        images.data,
        images.reading,
    )


class _Images(NamedTuple):
    """What is to be decoded, or was, in order of the files."""

    files: NDArray[np.int64]  # [N], the place of each one's file in the walk
    pages: NDArray[np.int32]  # [N], which one of the file
    rows: NDArray[np.int64]  # [N], its row among all pages, -1 where the file can't be read
    labels: NDArray[np.int64]
    sides: NDArray[np.int8]

    def take(self, which: NDArray[np.bool_]) -> "_Images":
        return _Images._make(each[which] for each in self)


def collect(found: Walk, data: DataConfig, seed: int, reader: Reader) -> Collected:
    """Decode the images among the files of a folder with `reader`.

    `seed` chooses the tenth to test on where the folder is not split. Raises `UserError` for a
    folder in none of the layouts, and for unreadable files that are not to be skipped.
    """
    by_suffix = data.reading == "suffix"
    surveyed, images, layout, class_names, left_out = _find_images(found, data, reader)
    is_trained = (images.sides == TRAIN) | (images.sides == UNSPLIT)
    trained = surveyed.looks(images.rows[is_trained & (images.rows >= 0)])
    _require_depth(trained, found)
    data = settle(data, trained)
    num_deep = surveyed.looks(images.rows[images.rows >= 0]).num_deep
    is_split = bool((images.sides == UNSPLIT).any())

    decoded = _decode(images, surveyed, found, data, reader)
    kept = decoded.images
    if by_suffix:
        # Of all files, also of those that can't be read, as runs did before.
        sides = _split(images, None, found, seed) if is_split else images.sides
        order = _order(sides)
        order = (np.cumsum(decoded.is_kept) - 1)[order[decoded.is_kept[order]]]
        kept = kept._replace(sides=sides[decoded.is_kept])
    else:
        if is_split:
            groups = groups_of(decoded.digests(), kept.files)
            kept = kept._replace(sides=_split(kept, groups, found, seed))
        order = _order(kept.sides)
    _require_both_sides(kept.sides, decoded.unreadable, found)
    unreadable = tallied((name, [f"unreadable: {why}"]) for name, why in decoded.unreadable)
    return Collected(
        class_names,
        _in_order(decoded.pixels, order),
        kept.labels[order],
        kept.files[order],
        kept.pages[order],
        _num_on_side(kept.sides),
        is_split,
        data,
        Reading(
            num_found=len(found),
            layout=(*layout, *_unused_settings(num_deep, data)),
            left_out=tuple(sorted((*left_out, *unreadable))),
            used_otherwise=tallied(
                decoded.fates.items(),
                lambda index: page_name(found.name(kept.files[index]), kept.pages[index]),
            ),
            remarks=_remarks(num_deep, len(images.files), data),
        ),
    )


class _Found(NamedTuple):
    surveyed: Survey
    images: _Images
    layout: tuple[str, ...]
    class_names: tuple[str, ...]
    left_out: tuple[Tally, ...]


def _find_images(found: Walk, data: DataConfig, reader: Reader) -> _Found:
    """Which of the files are images, and of what."""
    by_suffix = data.reading == "suffix"
    files = _by_suffix(found) if by_suffix else np.arange(len(found))
    surveyed = reader.survey(found, files, data)
    is_image = np.ones(len(files), bool)
    if not by_suffix:
        for index, _ in surveyed.faults.items():
            is_image[index] = _suffix(found, files[index]) in suffixes()
    candidates = np.flatnonzero(is_image)
    arranged = arrange(found, files[candidates], by_suffix=by_suffix)
    images = _expand(files, surveyed, candidates[arranged.used], arranged)
    others = tallied(
        ((index, [_kind(_suffix(found, index))]) for index in files[~is_image].tolist()), found.name
    )
    left_out = tallied((name, [why]) for why, name in found.left_out)
    return _Found(
        surveyed,
        images,
        arranged.layout,
        arranged.class_names,
        (*left_out, *arranged.left_out, *others),
    )


def _by_suffix(found: Walk) -> NDArray[np.int64]:
    return np.array(
        [i for i, name in enumerate(found.names) if name.lower().endswith(FIRST_SUFFIXES)], np.int64
    )


def _suffix(found: Walk, index: int) -> str:
    return Path(found.names[index]).suffix.lower()


def page_name(name: str, page: int) -> str:
    """The name of a file, with the number of the page from 2 on."""
    return f"{name}#{page + 1}" if page else name


def page_names(
    found: Walk, files: NDArray[np.int64], pages: NDArray[np.integer[Any]]
) -> tuple[str, ...]:
    each = zip(files.tolist(), pages.tolist(), strict=True)
    return tuple(page_name(found.name(index), page) for index, page in each)


def _in_order(pixels: PixelArray, order: NDArray[np.int64]) -> PixelArray:
    if isinstance(pixels, Mapped):
        return pixels.select(order)
    array = np.asarray(pixels)
    permute(array, order)
    return array


def permute(pixels: NDArray[np.uint8], order: NDArray[np.int64]) -> None:
    """Have `pixels` [N, ...] be `pixels[order]`, in their place: they may fill the memory."""
    is_done = np.zeros(len(order), bool)
    for start in range(len(order)):
        if is_done[start]:
            continue
        first, place = pixels[start].copy(), start
        while order[place] != start:
            pixels[place] = pixels[order[place]]
            is_done[place] = True
            place = int(order[place])
        pixels[place] = first
        is_done[place] = True


def _expand(
    files: NDArray[np.int64], surveyed: Survey, used: NDArray[np.int64], arranged: Arrangement
) -> _Images:
    """Each page of the `files` that are `used`, or one where it can't be read."""
    num_pages = surveyed.num_pages[used]
    first_rows = (np.cumsum(surveyed.num_pages) - surveyed.num_pages)[used]
    first_rows[num_pages == 0] = -1
    if num_pages.max(initial=1) == 1:  # the rest would take 40 bytes a file
        no_pages = np.zeros(len(used), np.int32)
        return _Images(files[used], no_pages, first_rows, arranged.labels, arranged.sides)
    num_images = np.maximum(1, num_pages)
    of_file = np.repeat(np.arange(len(used)), num_images)
    pages = np.arange(len(of_file))
    pages -= np.repeat(np.cumsum(num_images) - num_images, num_images)
    return _Images(
        files[used[of_file]],
        pages.astype(np.int32),
        first_rows[of_file] + pages,
        arranged.labels[of_file],
        arranged.sides[of_file],
    )


def _require_depth(looks: Looks, found: Walk) -> None:
    """Raise `UserError` where of colours of 16 bits too little is in the 8 that Pillow gives."""
    if looks.num_upper and looks.upper < FEWEST_LEVELS:
        raise UserError(
            f"--data.root {found.root}: {looks.num_upper} colour images have 16 bits a colour and "
            f"use the lower {8 + looks.upper.bit_length()} alone, of which Pillow gives "
            f"{looks.upper + 1} levels; save them with 8 bits a colour"
        )


class _Decoded(NamedTuple):
    pixels: PixelArray  # [N, C, H, W]
    digests: Callable[[], NDArray[np.uint64]]  # [N, 2]
    images: _Images  # [N], what they are
    is_kept: NDArray[np.bool_]  # [M], which they are of those that were to be decoded
    fates: Coded  # [N]
    unreadable: list[tuple[str, str]]  # the name of each other, and why


def _decode(
    images: _Images, surveyed: Survey, found: Walk, data: DataConfig, reader: Reader
) -> _Decoded:
    """Decode every image.

    Where some are unreadable and to be skipped, all starts anew without them, since they may have
    had a say in the number of channels.
    """
    is_kept = np.ones(len(images.files), bool)
    some = images
    unreadable: list[tuple[str, str]] = []
    while True:
        channels = common_channels(surveyed.looks(some.rows[some.rows >= 0]), data)
        decoded = reader.decode(found, some.files, some.pages, channels, data)
        failed = dict(decoded.unreadable.items())
        if not failed:
            pixels, _, fates, of_pixels = decoded
            return _Decoded(pixels, of_pixels, some, is_kept, fates, unreadable)
        unreadable += [
            (page_name(found.name(some.files[i]), some.pages[i]), why) for i, why in failed.items()
        ]
        is_kept[np.flatnonzero(is_kept)[list(failed)]] = False
        some = images.take(is_kept)
        if not data.skip_unreadable:
            named = [f"{printable(name)} ({why})" for name, why in sorted(unreadable)]
            raise UserError(
                f"--data.root {found.root}: can't read {some_of(named)}; replace them or "
                f"move them away, or leave them out with --data.skip_unreadable"
            )
        _require_both_sides(some.sides, unreadable, found)


def _require_both_sides(
    sides: NDArray[np.int8], unreadable: Sequence[tuple[str, str]], found: Walk
) -> None:
    if len(sides) and (sides == UNSPLIT).all():
        return
    for side, name in ((TRAIN, "train"), (TEST, "test")):
        if not (sides == side).any():
            raise UserError(
                f"--data.root {found.root}: none of the {name} images can be read "
                f"({some_of(sorted(name for name, _ in unreadable))}); replace them"
            )


def _split(
    images: _Images, groups: NDArray[np.int64] | None, found: Walk, seed: int
) -> NDArray[np.int8]:
    """A tenth for the test, each of the `groups` on one side, if there are any; the sides."""
    sides = np.full(len(images.files), TRAIN, np.int8)
    sides[hold_out_a_tenth(images.labels, groups, seed, found.root).held_out] = TEST
    return sides


def _order(sides: NDArray[np.int8]) -> NDArray[np.int64]:
    """The images side by side, those of each in one fixed shuffled order."""
    parts = [np.flatnonzero(sides == side) for side in (TRAIN, VALIDATION, TEST)]
    return np.concatenate(
        [part[np.random.default_rng(FIXED_SEED).permutation(len(part))] for part in parts]
    )


def _num_on_side(sides: NDArray[np.int8]) -> tuple[int, int, int]:
    train, validation, test = (int((sides == side).sum()) for side in (TRAIN, VALIDATION, TEST))
    return train, validation, test


def _kind(suffix: str) -> str:
    """What a file is that is no image, as far as its name says."""
    if suffix in REFUSED_SUFFIXES:
        return f"{suffix} files, which vaekit does not decode"
    return f"{suffix or 'nameless'} files, which hold no image that Pillow knows"


def _unused_settings(num_deep: int, data: DataConfig) -> tuple[str, ...]:
    if data.value_range == NOT_OF_8_BITS or data.reading == "suffix" or num_deep:
        return ()
    return (
        f"--data.value_range {data.value_range} is not used: no file has more than 8 bits a pixel",
    )


def _remarks(num_deep: int, num_images: int, data: DataConfig) -> tuple[str, ...]:
    if not num_deep:
        return ()
    low, high = parse_value_range(data.value_range)
    return (
        f"{num_deep:,} of {num_images:,} images have more than 8 bits a pixel: values "
        f"from {low:g} to {high:g} become black to white (--data.value_range)",
    )
