"""The latents of images, from the images in memory to a file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.conftest import Compete
from bench.interleaved import Contest
from bench.plain_loops import encode_with_loader
from vaekit.images.image_set import ImageSet
from vaekit.models.vae import VAE
from vaekit.stages.latents import batch_size_on, encode_into
from vaekit.training.ranks import start_ranks

NUM_IMAGES = {"cpu": 4000, "cuda": 60_000}
FEW_IMAGES = 500  # where nothing is timed
ROUNDS = {"cpu": 11, "cuda": 5}  # enough for a bound above the smallest two of the ratios, or one
TOLERANCE = 1e-4


def test_against_a_data_loader(
    compete: Compete, threads: int, is_quick: bool, tmp_path: Path
) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    ranks = start_ranks()
    device = ranks.device
    batch_size = batch_size_on(device)
    num_images = FEW_IMAGES if is_quick else NUM_IMAGES[device.type]
    pixels = np.random.default_rng(0).integers(0, 256, (num_images, 1, 28, 28), dtype=np.uint8)
    torch.manual_seed(0)
    vae = VAE().eval().to(device)
    our_file, their_file = tmp_path / "ours.npy", tmp_path / "theirs.npy"

    def agree(_ours: None, _theirs: None) -> None:
        np.testing.assert_allclose(
            np.load(our_file), np.load(their_file), rtol=TOLERANCE, atol=TOLERANCE
        )

    compete(
        Contest(
            work="latents",
            ours=lambda: encode_into(our_file, vae, ImageSet(pixels, None), ranks),
            peer="DataLoader loop",
            theirs=lambda: np.save(their_file, encode_with_loader(vae, pixels, batch_size)),
            agree=agree,
            rounds=ROUNDS[device.type],
            note=f"{num_images:,} images, batch {batch_size}",
            device=device.type,
            is_floor_for_bound=True,
        )
    )
