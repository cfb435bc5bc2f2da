"""New images out of nothing."""

from pathlib import Path

from vaekit.errors import UserError
from vaekit.images.pictures import image_grid, write_image
from vaekit.runs.run import Run

MAX_GENERATED = 10_000


def generate(run: Run, count: int, output: Path, seed: int) -> None:
    """Decode `count` latents from the prior into one picture, a grid of images."""
    if not 1 <= count <= MAX_GENERATED:
        raise UserError(f"--count {count}: expected from 1 to {MAX_GENERATED}, for one picture")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output {output}: expected a name that ends in .png")
    write_image(output, image_grid(run.sample(count, seed)))
    print(f"{count} images: {output}")
