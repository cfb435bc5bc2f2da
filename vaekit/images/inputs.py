"""Images that a person hands over, as the model of a run takes them."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.config import DataConfig
from vaekit.errors import UserError, say, some_of
from vaekit.images.appearance import Appearance, compare
from vaekit.images.decode import prepare_readable
from vaekit.images.formats import NO_IMAGE
from vaekit.images.in_memory import planes
from vaekit.images.pixels import ImageShape
from vaekit.images.reading import tallied
from vaekit.images.walk import walk

RARELY_UNLIKE = 0.05  # of images that are like those of the training set, at most

GivenPath = str | PathLike[str]
# An array uint8 [N, H, W], [N, H, W, C] or [N, C, H, W]; image files, or folders of them.
GivenImages = NDArray[np.uint8] | GivenPath | Sequence[GivenPath]


class Trained(NamedTuple):
    """What is known of the images that a model was trained on, which others are made like."""

    shape: ImageShape
    data: DataConfig  # with what the images settled
    class_names: tuple[str, ...]
    appearance: Appearance | None


class Inputs(NamedTuple):
    """Images that could be read."""

    pixels: NDArray[np.uint8]  # [N, C, H, W]
    files: tuple[str, ...] | None  # [N], as they were given; None of an array
    labels: tuple[int | None, ...]  # [N], of the class after which a file's folder is named


class _Found(NamedTuple):
    path: Path
    folder: Path | None  # that it was found in; None where it was given itself


def read_inputs(given: GivenImages, trained: Trained, *, skip_unreadable: bool = False) -> Inputs:
    """Arrays as they are, and files prepared as the images were that the model was trained on.

    What was left out or used as something else is said, and whether images look unlike those of
    the training. Raises `UserError` for arrays of other values or sizes, for files that can't be
    read and are not to be skipped, and where nothing is left.
    """
    if isinstance(given, np.ndarray):
        pixels = planes(given, trained.shape, trained.data)
        inputs = Inputs(pixels, None, (None,) * len(pixels))
    else:
        inputs = _read_files(_paths(given), trained, skip_unreadable)
    _say_what_looks_unlike(inputs.pixels, trained.appearance)
    return inputs


def _paths(given: Any) -> list[Path]:
    if isinstance(given, str | PathLike):
        return [Path(given)]
    if not isinstance(given, Sequence):
        raise UserError(
            f"images: of the type {type(given).__name__}, expected a NumPy array, paths of image "
            f"files, or a folder; give numpy.asarray(images) of an array of another library"
        )
    if not given:
        raise UserError("images: none were given; give one or more")
    if wrong := [each for each in given if not isinstance(each, str | PathLike)]:
        raise UserError(
            f"images: {len(wrong)} of {len(given)} are of the type {type(wrong[0]).__name__}, "
            f"expected paths; give numpy.stack(images) where they are arrays"
        )
    return [Path(each) for each in given]


def _read_files(given: Sequence[Path], trained: Trained, skip_unreadable: bool) -> Inputs:
    found, left_out = _expand(given)
    prepared = prepare_readable([each.path for each in found], trained.shape, trained.data)
    unreadable = dict(prepared.unreadable)
    no_images = [i for i, why in unreadable.items() if found[i].folder and why == NO_IMAGE]
    for index in no_images:
        del unreadable[index]
    named = [f"{found[i].path} ({why})" for i, why in sorted(unreadable.items())]
    if named and not skip_unreadable:
        raise UserError(
            f"can't read {some_of(named)}; leave out or replace what is no whole image, or go on "
            f"without with --skip_unreadable"
        )
    if not len(prepared.pixels):
        raise UserError(
            f"{some_of([str(path) for path in given])}: no image that can be read"
            f"{f' ({some_of(named)})' if named else ''}; give image files, or folders of them"
        )
    left_out += [(str(found[i].path), "files that are no images") for i in sorted(no_images)]
    for tally in tallied((name, [why]) for name, why in left_out):
        say(f"not used: {tally}")
    if named:
        say(f"going on without {len(named)} of {len(found)} files: {some_of(named)}")
    for tally in prepared.used_otherwise:
        say(str(tally))
    kept = [found[index] for index in prepared.kept.tolist()]
    return Inputs(
        prepared.pixels,
        tuple(str(each.path) for each in kept),
        tuple(_label(each, trained.class_names) for each in kept),
    )


def _expand(given: Sequence[Path]) -> tuple[list[_Found], list[tuple[str, str]]]:
    """Files themselves, those in folders and below them, and what of these is left out, and why."""
    found, left_out = [], []
    for path in given:
        if not path.is_dir():
            found.append(_Found(path, None))
            continue
        walked = walk(path, by_suffix=False)
        found += [_Found(walked.path(index), path) for index in range(len(walked))]
        left_out += [(str(path / name), why) for why, name in walked.left_out]
    return found, left_out


def _label(found: _Found, class_names: Sequence[str]) -> int | None:
    """The class whose name the innermost folder bears, of those from the given one on."""
    top = found.folder or found.path.parent
    below = found.path.relative_to(top).parts[:-1]
    for name in reversed((top.absolute().name, *below)):
        if name in class_names:
            return class_names.index(name)
    return None


def _say_what_looks_unlike(pixels: NDArray[np.uint8], appearance: Appearance | None) -> None:
    if appearance is None:
        return
    looks, count = compare(pixels, appearance), len(pixels)
    if looks.num_inverted:
        say(
            f"warning: {looks.num_inverted} of {count} images look inverted: light where those "
            f"that the run was trained on are dark, and dark where they are light; invert them "
            f"(255 - value) before you trust what is said of them"
        )
    if looks.num_unlike > RARELY_UNLIKE * count:
        say(
            f"warning: {looks.num_unlike} of {count} images are brighter, darker, flatter or "
            f"starker than those that the run was trained on; don't trust what is said of them"
        )
