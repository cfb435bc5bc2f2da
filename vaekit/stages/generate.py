"""New images out of nothing."""

from pathlib import Path

import torch

from vaekit.errors import UserError
from vaekit.images.pictures import image_grid, write_image
from vaekit.images.pixels import as_pixels
from vaekit.runs.run import Run
from vaekit.training.noise import Stream, normal_noise

BATCH_SIZE = 500
MAX_GENERATED = 10_000


@torch.no_grad()
def generate(run: Run, count: int, output: Path, seed: int) -> None:
    """Decode `count` latents from the prior into one picture, a grid of images."""
    if not 1 <= count <= MAX_GENERATED:
        raise UserError(f"--count {count}: expected from 1 to {MAX_GENERATED}, for one picture")
    if seed < 0:
        raise UserError(f"--seed {seed}: expected at least 0")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output {output}: expected a name that ends in .png")
    vae = run.weights.vae
    shape = (count, vae.latent_dim)
    latents = normal_noise(shape, seed, Stream.SAMPLES, 0, torch.device("cpu"))
    images = torch.cat([vae.decode(batch) for batch in torch.split(latents, BATCH_SIZE)])
    write_image(output, image_grid(as_pixels(images)))
    print(f"{count} images: {output}")
