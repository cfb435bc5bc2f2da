"""The images of a folder: found, decoded, split in sides, and counted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vaekit.config import DataConfig, parse_value_range
from vaekit.errors import UserError, some_of
from vaekit.images.copies import digests, groups_of
from vaekit.images.decode import Source, decode_files
from vaekit.images.folder import TEST, TRAIN, UNSPLIT, VALIDATION, Walk, arrange
from vaekit.images.formats import FIRST_SUFFIXES, REFUSED_SUFFIXES, suffixes
from vaekit.images.mapped import Mapped, PixelArray
from vaekit.images.reading import Reading, tallied
from vaekit.images.splits import FIXED_SEED, hold_out_a_tenth
from vaekit.images.survey import Page, Surveyed, common_channels, settle, survey

FEWEST_LEVELS = 64  # that colours of 16 bits must have left in their upper 8
NOT_OF_8_BITS = "0,255"  # the range that no deep file has chosen


class Read(NamedTuple):
    """What became of N sources."""

    pixels: PixelArray  # [N, C, H, W], of those that can't be read whatever
    unreadable: dict[int, str]  # the indices of those, and why
    fates: list[tuple[str, ...]]  # [N], what each was used as, where not as it is
    digests: Callable[[], NDArray[np.uint64]]  # [N, 2], of the pixels


class Reader(Protocol):
    """Reads image files."""

    def survey(self, paths: Sequence[Path], data: DataConfig) -> list[Surveyed]:
        """What each file holds, with every value that settings need."""

    def decode(self, sources: Sequence[Source], channels: int, data: DataConfig) -> Read:
        """The images of all sources, prepared as `data`, which is settled, says."""


class InMemory:
    """Reads all images into one array."""

    def survey(self, paths: Sequence[Path], data: DataConfig) -> list[Surveyed]:
        return survey(paths, data, every_value=True)

    def decode(self, sources: Sequence[Source], channels: int, data: DataConfig) -> Read:
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


class Collected(NamedTuple):
    """The images of a folder: those to train on, then those to validate on, then the others."""

    class_names: tuple[str, ...]  # () for an unlabelled folder
    pixels: PixelArray  # [N, C, H, W]
    rows: NDArray[np.int64]  # [N, 3], the label (0 without), the file in the walk, the page
    num_on_side: tuple[int, int, int]
    is_split: bool  # whether vaekit chose the sides, by the seed
    data: DataConfig  # with what the files settled
    reading: Reading  # without the counts that a split or a limit may still change


def folder_images(images: Collected, found: Walk) -> FolderImages:
    """What was collected, with labels and names by themselves."""
    labels, files, pages = images.rows.T
    return FolderImages(
        images.class_names,
        images.pixels,
        np.ascontiguousarray(labels) if images.class_names else None,
        tuple(
            page_name(found.files[file].relative_to(found.root).as_posix(), page)
            for file, page in zip(files.tolist(), pages.tolist(), strict=True)
        ),
        images.num_on_side,
        images.data,
        images.reading,
    )


class _Images(NamedTuple):
    """What is to be decoded, or was, in order of the files."""

    sources: list[Source]
    names: list[str]
    pages: list[tuple[Page, ...]]  # one of each, none where the file can't be read
    files: NDArray[np.int64]  # the number of the file of each
    labels: NDArray[np.int64]
    sides: NDArray[np.int64]

    @property
    def page_numbers(self) -> NDArray[np.int64]:
        return np.array([source.page for source in self.sources], np.int64)

    def take(self, which: Sequence[int] | NDArray[np.int64]) -> "_Images":
        rows = np.asarray(which, np.int64)
        lists = ([each[i] for i in rows] for each in (self.sources, self.names, self.pages))
        sources, names, pages = lists
        return _Images(sources, names, pages, self.files[rows], self.labels[rows], self.sides[rows])


def collect(found: Walk, data: DataConfig, seed: int, reader: Reader) -> Collected:
    """Decode the images among the files of a folder with `reader`.

    `seed` chooses the tenth to test on where the folder is not split. Raises `UserError` for a
    folder in none of the layouts, and for unreadable files that are not to be skipped.
    """
    by_suffix = data.reading == "suffix"
    places = np.array(
        [
            index
            for index, path in enumerate(found.files)
            if not by_suffix or path.name.lower().endswith(FIRST_SUFFIXES)
        ],
        np.int64,
    )
    paths = [found.files[index] for index in places]
    surveyed = reader.survey(paths, data)
    are_images = [
        by_suffix or not each.fault or path.suffix.lower() in suffixes()
        for path, each in zip(paths, surveyed, strict=True)
    ]
    candidates = np.flatnonzero(are_images)
    arranged = arrange(found, [paths[i] for i in candidates], by_suffix=by_suffix)
    used = candidates[arranged.used]
    images = _expand(found, paths, surveyed, used, arranged.labels, arranged.sides)
    trained = [page for each in images.take(_trained(images)).pages for page in each]
    _require_depth(trained, found)
    data = settle(data, trained)
    is_split = bool((images.sides == UNSPLIT).any())

    decoded = _decode(images, found, data, reader)
    kept = images.take(decoded.kept)
    if by_suffix:
        sides = _split_files(images, found, seed) if is_split else images.sides
        place = np.full(len(sides), -1)
        place[decoded.kept] = np.arange(len(decoded.kept))
        order = place[_order(sides)]
        order, kept = order[order >= 0], kept._replace(sides=sides[decoded.kept])
    else:
        if is_split:
            kept = kept._replace(sides=_split(kept, decoded.digests(), found, seed))
        order = _order(kept.sides)
    _require_both_sides(kept.sides, decoded.unreadable, found)
    others = [
        (_kind(paths[i].suffix), paths[i].relative_to(found.root).as_posix())
        for i in np.flatnonzero(~np.array(are_images, bool))
    ]
    unreadable = [(f"unreadable: {why}", name) for name, why in decoded.unreadable]
    left_out = [*found.left_out, *arranged.left_out, *others, *unreadable]
    return Collected(
        arranged.class_names,
        _in_order(decoded.pixels, order),
        np.stack([kept.labels, places[kept.files], kept.page_numbers], axis=1)[order],
        _num_on_side(kept.sides),
        is_split,
        data,
        Reading(
            num_found=len(found.files),
            layout=(*arranged.layout, *_unused_settings(images, data)),
            left_out=tallied((name, [why]) for why, name in left_out),
            used_otherwise=tallied(zip(kept.names, decoded.fates, strict=True)),
            remarks=_remarks(images, data),
        ),
    )


def page_name(name: str, page: int) -> str:
    """The name of a file, with the number of the page from 2 on."""
    return f"{name}#{page + 1}" if page else name


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
    found: Walk,
    paths: Sequence[Path],
    surveyed: Sequence[Surveyed],
    used: NDArray[np.int64],
    labels: NDArray[np.int64],
    sides: NDArray[np.int64],
) -> _Images:
    """Each page of a file that is used, or one where it can't be read."""
    sources, names, pages, rows = [], [], [], []
    prefix = str(found.root / "x")[:-1]  # much faster than Path.relative_to
    for row, index in enumerate(used.tolist()):
        path, each = paths[index], surveyed[index]
        name = str(path).removeprefix(prefix)
        for page in range(max(1, len(each.pages))):
            sources.append(Source(path, page))
            names.append(page_name(name, page))
            pages.append(each.pages[page : page + 1])
            rows.append(row)
    return _Images(sources, names, pages, used[rows], labels[rows], sides[rows])


def _require_depth(pages: Sequence[Page], found: Walk) -> None:
    """Raise `UserError` where of colours of 16 bits too little is in the 8 that Pillow gives."""
    uppers = [page.upper for page in pages if page.upper is not None]
    if uppers and max(uppers) < FEWEST_LEVELS:
        raise UserError(
            f"--data.root {found.root}: {len(uppers)} colour images have 16 bits a colour and use "
            f"the lower {8 + max(uppers).bit_length()} alone, of which Pillow gives "
            f"{max(uppers) + 1} levels; save them with 8 bits a colour"
        )


def _trained(images: _Images) -> NDArray[np.int64]:
    return np.flatnonzero((images.sides == TRAIN) | (images.sides == UNSPLIT))


class _Decoded(NamedTuple):
    pixels: PixelArray  # [N, C, H, W]
    digests: Callable[[], NDArray[np.uint64]]  # [N, 2]
    kept: NDArray[np.int64]  # [N], which images they are
    fates: list[tuple[str, ...]]  # [N]
    unreadable: list[tuple[str, str]]  # the name of each other, and why


def _decode(images: _Images, found: Walk, data: DataConfig, reader: Reader) -> _Decoded:
    """Decode every image.

    Where some are unreadable and to be skipped, all starts anew without them, since they may have
    had a say in the number of channels.
    """
    kept = np.arange(len(images.sources))
    unreadable: list[tuple[str, str]] = []
    while True:
        some = images.take(kept)
        channels = common_channels([page for each in some.pages for page in each], data)
        decoded = reader.decode(some.sources, channels, data)
        if not decoded.unreadable:
            return _Decoded(decoded.pixels, decoded.digests, kept, decoded.fates, unreadable)
        unreadable += [(some.names[i], why) for i, why in decoded.unreadable.items()]
        kept = np.delete(kept, list(decoded.unreadable))
        if not data.skip_unreadable:
            named = [f"{_printable(name)} ({why})" for name, why in sorted(unreadable)]
            raise UserError(
                f"--data.root {found.root}: can't read {some_of(named)}; replace them or "
                f"move them away, or leave them out with --data.skip_unreadable"
            )
        _require_both_sides(images.sides[kept], unreadable, found)


def _require_both_sides(
    sides: NDArray[np.int64], unreadable: Sequence[tuple[str, str]], found: Walk
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
    images: _Images, of_images: NDArray[np.uint64], found: Walk, seed: int
) -> NDArray[np.int64]:
    """A tenth for the test: equal images, and pages of a file, on one side; the sides."""
    groups = groups_of(of_images, images.files)
    held_out = hold_out_a_tenth(images.labels, groups, seed, found.root).held_out
    return _sides(len(of_images), held_out)


def _split_files(images: _Images, found: Walk, seed: int) -> NDArray[np.int64]:
    """A tenth of all files, also of those that can't be read, as runs did before; the sides."""
    held_out = hold_out_a_tenth(images.labels, None, seed, found.root).held_out
    return _sides(len(images.sources), held_out)


def _sides(num_images: int, held_out: NDArray[np.int64]) -> NDArray[np.int64]:
    sides = np.full(num_images, TRAIN)
    sides[held_out] = TEST
    return sides


def _order(sides: NDArray[np.int64]) -> NDArray[np.int64]:
    """The images side by side, those of each in one fixed shuffled order."""
    parts = [np.flatnonzero(sides == side) for side in (TRAIN, VALIDATION, TEST)]
    return np.concatenate(
        [part[np.random.default_rng(FIXED_SEED).permutation(len(part))] for part in parts]
    )


def _num_on_side(sides: NDArray[np.int64]) -> tuple[int, int, int]:
    train, validation, test = (int((sides == side).sum()) for side in (TRAIN, VALIDATION, TEST))
    return train, validation, test


def _kind(suffix: str) -> str:
    """What a file is that is no image, as far as its name says."""
    if suffix.lower() in REFUSED_SUFFIXES:
        return f"{suffix.lower()} files, which vaekit does not decode"
    return f"{suffix.lower() or 'nameless'} files, which hold no image that Pillow knows"


def _unused_settings(images: _Images, data: DataConfig) -> tuple[str, ...]:
    if data.value_range == NOT_OF_8_BITS or data.reading == "suffix" or _num_deep(images):
        return ()
    return (
        f"--data.value_range {data.value_range} is not used: no file has more than 8 bits a pixel",
    )


def _remarks(images: _Images, data: DataConfig) -> tuple[str, ...]:
    num_deep = _num_deep(images)
    if not num_deep:
        return ()
    low, high = parse_value_range(data.value_range)
    return (
        f"{num_deep:,} of {len(images.sources):,} images have more than 8 bits a pixel: values "
        f"from {low:g} to {high:g} become black to white (--data.value_range)",
    )


def _num_deep(images: _Images) -> int:
    return sum(page.is_deep for pages in images.pages for page in pages)


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)
