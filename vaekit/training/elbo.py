"""The loss of the averaged weights over a whole image set."""

from collections.abc import Callable

import torch
from accelerate import Accelerator

from vaekit.images.mapped import PixelArray
from vaekit.images.pixels import as_floats
from vaekit.models.vae import VAE
from vaekit.training.losses import Losses
from vaekit.training.noise import NormalRows, Stream, rank_slice

BATCH_SIZE = 500


@torch.no_grad()
def evaluate(
    vae: VAE,
    pixels: PixelArray,
    seed: int,
    accelerator: Accelerator,
    between_batches: Callable[[], None],
) -> Losses:
    """The mean over all images [N, C, H, W], z sampled with a fixed seed.

    Each rank takes its share, in as many batches as the others; between them all call
    `between_batches`, which may raise.
    """
    device, count = accelerator.device, len(pixels)
    noise = NormalRows(count, vae.latent_dim, seed, Stream.EVALUATION, device)
    share = rank_slice(count, accelerator.process_index, accelerator.num_processes)
    largest_share = -(-count // accelerator.num_processes)
    sums = []
    for offset in range(0, largest_share, BATCH_SIZE):
        between_batches()
        start = share.start + offset
        batch = slice(start, min(start + BATCH_SIZE, share.stop))
        images = as_floats(torch.from_numpy(pixels[batch]).to(device))
        with accelerator.autocast():
            output = vae(images, noise.take(batch))
        elbo = vae.bound(output, images)
        sums.append(torch.stack([elbo.reconstruction.sum(), elbo.kl.sum()]))
    total = accelerator.reduce(torch.stack(sums).sum(dim=0), reduction="sum")
    return Losses(*(total.cpu().double() / count).tolist())
