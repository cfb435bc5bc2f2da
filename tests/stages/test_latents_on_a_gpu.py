"""A GPU encodes as a CPU does."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vaekit.images.image_set import ImageSet
from vaekit.images.pixels import as_floats
from vaekit.models.gaussian import Posterior
from vaekit.models.vae import VAE
from vaekit.stages.latents import encode_into
from vaekit.training.precision import convolves_in_tf32
from vaekit.training.ranks import start_ranks


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_latents_of_a_cpu_but_for_rounding_in_float32(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (500, 1, 28, 28), dtype=np.uint8)
    vae = VAE().eval()
    with torch.no_grad():
        expected = torch.cat(vae.encode(as_floats(torch.from_numpy(pixels))), dim=1).numpy()
    ranks = start_ranks()
    path = tmp_path / "latents.npy"
    encode_into(path, vae.to(ranks.device), ImageSet(pixels, None), ranks)
    np.testing.assert_allclose(np.load(path), expected, rtol=0, atol=1e-5)


def test_latents_are_encoded_without_tf32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, seen = torch.device("cuda"), []

    def encode(images: torch.Tensor) -> Posterior:
        seen.append(convolves_in_tf32(gpu))
        return Posterior(torch.zeros(len(images), 10), torch.zeros(len(images), 10))

    vae = VAE()
    monkeypatch.setattr(vae, "encode", encode)
    pixels = np.zeros((3, 1, 28, 28), np.uint8)
    encode_into(tmp_path / "latents.npy", vae, ImageSet(pixels, None), start_ranks())
    assert seen == [False]
    assert convolves_in_tf32(gpu)
