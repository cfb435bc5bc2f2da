"""A person's own files, as the model of a run takes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vaekit.errors import UserError, say, some_of
from vaekit.images.appearance import compare
from vaekit.images.decode import prepare_readable
from vaekit.images.folder import walk
from vaekit.images.formats import NO_IMAGE
from vaekit.images.pixels import as_floats
from vaekit.images.reading import tallied
from vaekit.runs.run import Run
from vaekit.runs.weights import Weights

BATCH_SIZE = 500
RARELY_UNLIKE = 0.05  # of images that are like those of the training set, at most


class Inputs(NamedTuple):
    """Images that could be read."""

    files: tuple[str, ...]  # [N], as they were given
    labels: tuple[int | None, ...]  # [N], of the class after which a file's folder is named
    pixels: NDArray[np.uint8]  # [N, C, H, W]


class Encoding(NamedTuple):
    """What the encoder says of N images."""

    mean: NDArray[np.float32]  # [N, L]
    log_variance: NDArray[np.float32]  # [N, L]


class _Found(NamedTuple):
    path: Path
    folder: Path | None  # that it was found in; None where it was given itself


def read_inputs(run: Run, given: Sequence[Path], *, skip_unreadable: bool) -> Inputs:
    """Image files, and those in folders, prepared as the images of the run were.

    What was left out or used as something else is said, and whether images look unlike those that
    the run was trained on. Raises `UserError` for files that can't be read and are not to be
    skipped, and where nothing is left.
    """
    weights = run.weights
    found, left_out = _expand(given)
    prepared = prepare_readable(
        [each.path for each in found], weights.vae.image_shape, run.config.data
    )
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
    _say_what_looks_unlike(prepared.pixels, weights)
    kept = [found[index] for index in prepared.kept.tolist()]
    return Inputs(
        tuple(str(each.path) for each in kept),
        tuple(_label(each, weights.class_names) for each in kept),
        prepared.pixels,
    )


@torch.no_grad()
def encode_pixels(weights: Weights, pixels: NDArray[np.uint8]) -> Encoding:
    """Encode images [N, C, H, W] of the shape of the model."""
    batches = torch.split(torch.from_numpy(pixels), BATCH_SIZE)
    posteriors = [weights.vae.encode(as_floats(batch)) for batch in batches]
    means, log_variances = zip(*posteriors, strict=True)
    return Encoding(torch.cat(means).numpy(), torch.cat(log_variances).numpy())


def _expand(given: Sequence[Path]) -> tuple[list[_Found], list[tuple[str, str]]]:
    """Files themselves, those in folders and below them, and what of these is left out, and why."""
    found, left_out = [], []
    for path in given:
        if not path.is_dir():
            found.append(_Found(path, None))
            continue
        walked = walk(path, by_suffix=False)
        found += [_Found(file, path) for file in walked.files]
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


def _say_what_looks_unlike(pixels: NDArray[np.uint8], weights: Weights) -> None:
    if weights.appearance is None:
        return
    looks, count = compare(pixels, weights.appearance), len(pixels)
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
