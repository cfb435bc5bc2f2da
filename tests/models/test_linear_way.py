"""Where a run of few images starts: at probabilistic PCA, as scikit-learn finds it."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from vaekit.config import ModelConfig, TrainConfig
from vaekit.images.image_set import Images, ImageSet
from vaekit.images.pixels import ImageShape, as_floats
from vaekit.models.vae import VAE
from vaekit.training.ranks import start_accelerator
from vaekit.training.state import Training, initial_vae

LATENT_DIM = 3


def blocks(num_images: int, shape: ImageShape, side: int) -> NDArray[np.uint8]:
    """Images of a few hidden causes and noise, constant on squares of `side` pixels."""
    generator = np.random.default_rng(0)
    channels, height, width = shape
    small = (channels, -(-height // side), -(-width // side))
    causes = generator.normal(size=(num_images, 5)) * [40, 25, 15, 6, 3]
    patterns = generator.normal(size=(5, int(np.prod(small))))
    values = (
        128
        + causes @ patterns / 3
        + generator.normal(scale=4, size=(num_images, patterns.shape[1]))
    )
    images = values.reshape(num_images, *small).clip(0, 255).astype(np.uint8)
    return images.repeat(side, axis=2).repeat(side, axis=3)[:, :, :height, :width]


def conv_vae(likelihood: str, shape: ImageShape) -> VAE:
    return VAE(from_components(likelihood), shape)


def from_components(likelihood: str) -> ModelConfig:
    return ModelConfig("conv", likelihood, LATENT_DIM, width=2, thumbnail=False)


@pytest.mark.parametrize("likelihood", ["gaussian", "logistic"])
@pytest.mark.parametrize(
    ("shape", "side"), [((3, 8, 8), 1), ((1, 9, 12), 1), ((2, 8, 36), 2), ((1, 12, 66), 3)]
)
def test_a_vae_starts_as_probabilistic_pca(likelihood: str, shape: ImageShape, side: int) -> None:
    pixels = blocks(900, shape, side)
    vae = conv_vae(likelihood, shape)
    vae.start_from(pixels)
    rows = pixels.reshape(len(pixels), -1) / 255
    pca = PCA(LATENT_DIM, svd_solver="full").fit(rows)
    variances, noise = pca.explained_variance_, pca.noise_variance_

    images = as_floats(torch.from_numpy(pixels[:20]))
    with torch.no_grad():
        posterior = vae.encode(images)
        decoded = vae.dec(posterior.mean).flatten(start_dim=1).numpy()
    # Tipping and Bishop (1999), section 3.3: the posterior's mean, decoded, and its variance.
    shrunken = pca.transform(rows[:20]) * (variances - noise) / variances
    np.testing.assert_allclose(decoded, shrunken @ pca.components_ + pca.mean_, atol=1e-4)
    expected = np.broadcast_to(np.log(noise / variances), (20, LATENT_DIM))
    np.testing.assert_allclose(posterior.log_variance.numpy(), expected, atol=1e-2)


def test_the_learnt_scale_starts_as_what_components_leave() -> None:
    pixels = blocks(900, (3, 8, 8), 1)
    vae = conv_vae("gaussian", (3, 8, 8))
    vae.start_from(pixels)
    noise = PCA(LATENT_DIM).fit(pixels.reshape(900, -1) / 255).noise_variance_
    assert vae.log_scale is not None
    assert vae.log_scale.exp().item() == pytest.approx(np.sqrt(noise), rel=1e-3)


def test_sides_that_no_square_divides_keep_every_pixel() -> None:
    shape = (1, 33, 35)
    vae = conv_vae("gaussian", shape)
    vae.start_from(blocks(40, shape, 1))
    images = torch.rand(2, *shape)
    corner = images.clone()
    corner[..., -1, -1] += 0.5
    with torch.no_grad():
        assert vae.decode(torch.zeros(2, LATENT_DIM)).shape == (2, *shape)
        assert (vae.enc.components(images) != vae.enc.components(corner)).any()


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((10, 3, 8, 8), 7, np.uint8),
        blocks(1, (3, 8, 8), 1),
        blocks(3, (3, 8, 8), 1),
        np.eye(64, dtype=np.uint8).reshape(64, 1, 8, 8),
        blocks(30, (1, 1, 3), 1),
    ],
    ids=["all equal", "one", "fewer than latents", "nearly black", "as many values as latents"],
)
def test_images_without_components_give_finite_weights(pixels: NDArray[np.uint8]) -> None:
    vae = conv_vae("gaussian", pixels.shape[1:])
    vae.start_from(pixels)
    images = as_floats(torch.from_numpy(pixels))
    vae.elbo(images, torch.randn(len(images), LATENT_DIM)).loss.mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.isfinite().all(), name
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_training_starts_there_where_pixels_have_a_scale(likelihood: str) -> None:
    pixels = blocks(64, (3, 8, 8), 1)
    config = TrainConfig(model=from_components(likelihood), mixed_precision="no")
    images = Images(ImageSet(pixels, None), ImageSet(pixels[:4], None), ())
    training = Training(config, images, start_accelerator(config))
    expected = initial_vae(training.config, (3, 8, 8))
    if likelihood == "gaussian":
        expected.start_from(pixels)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(training.vae.state_dict()[name], tensor), name
        assert torch.equal(training.ema.state_dict()[name], tensor), name
