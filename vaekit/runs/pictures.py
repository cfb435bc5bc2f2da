"""The pictures of an epoch: what the averaged weights generate and reconstruct."""

import torch

from vaekit.images.pictures import image_grid, reconstruction_grid, write_image
from vaekit.images.pixels import as_floats, as_pixels
from vaekit.runs.folder import RunFolder
from vaekit.training.noise import Stream, normal_noise
from vaekit.training.state import Training

NUM_SAMPLES = 64
NUM_RECONSTRUCTIONS = 32


@torch.no_grad()
def write_pictures(training: Training, run: RunFolder, epoch: int) -> None:
    """Generated images from the same latents at every epoch, and reconstructions."""
    device, vae = training.accelerator.device, training.ema
    shape = (NUM_SAMPLES, vae.latent_dim)
    latents = normal_noise(shape, training.config.seed, Stream.SAMPLES, 0, device)
    write_image(run.samples(epoch), image_grid(as_pixels(vae.decode(latents))))
    originals = training.images.test.pixels[:NUM_RECONSTRUCTIONS]
    images = as_floats(torch.from_numpy(originals).to(device))
    reconstructed = as_pixels(vae.decode(vae.encode(images).mean))
    write_image(run.reconstructions(epoch), reconstruction_grid(originals, reconstructed))
