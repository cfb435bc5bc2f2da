"""New images: out of nothing, out of others, and between two."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vaekit.errors import UserError
from vaekit.images.pictures import image_grid, reconstruction_grid
from vaekit.runs.inference import reconstruct as decode_again
from vaekit.runs.run import Run
from vaekit.stages.outputs import numbered, require_place, write_images

MAX_GENERATED = 10_000


def generate(run: Run, count: int, output: Path, seed: int) -> None:
    """Decode `count` latents from the prior: into a grid, an array, or a file each."""
    if not 1 <= count <= MAX_GENERATED:
        raise UserError(f"--count {count}: expected from 1 to {MAX_GENERATED}")
    require_place(output)
    images = run.sample(count, seed)
    grid = partial(image_grid, images, keep_alpha=True)
    write_images(output, images, numbered(count), grid)
    print(f"{count} images: {output}")


def reconstruct(
    run: Run, given: Sequence[Path], output: Path, skip_unreadable: bool = False
) -> None:
    """Decode image files again from the means of their latents.

    A picture has each row of files above the row of their reconstructions; an array and a folder
    hold the reconstructions alone, in the order of the files, which folders name, too.
    """
    require_place(output)
    inputs = run.inputs(given, skip_unreadable)
    images = decode_again(run.weights, inputs.pixels)
    names = [
        f"{number}-{Path(file).stem}"
        for number, file in zip(numbered(len(images)), inputs.files or (), strict=True)
    ]
    write_images(output, images, names, partial(reconstruction_grid, inputs.pixels, images))
    print(f"{len(images)} images: {output}")


def interpolate(run: Run, first: Path, last: Path, steps: int, output: Path) -> None:
    """Decode the straight line between the latents of two image files, in `steps` images."""
    if not 2 <= steps <= MAX_GENERATED:
        raise UserError(f"--steps {steps}: expected from 2 to {MAX_GENERATED}")
    require_place(output)
    images = run.interpolate(first, last, steps)
    grid = partial(image_grid, images, steps, keep_alpha=True)
    write_images(output, images, numbered(steps), grid)
    print(f"{steps} images: {output}")
