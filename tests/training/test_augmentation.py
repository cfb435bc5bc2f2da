"""Images rotated, scaled and shifted a little: by how much, and of what they depend."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_config
from scipy.ndimage import affine_transform
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import InterpolationMode, affine

from vaekit.images.pixels import as_floats
from vaekit.images.sets import load_images
from vaekit.models.vae import VAE, VAEOutput
from vaekit.training.augmentation import NUM_DRAWS, augmented
from vaekit.training.noise import Stream, normal_noise
from vaekit.training.ranks import start_accelerator
from vaekit.training.state import Training

HEIGHT, WIDTH = 40, 50


@pytest.fixture
def images() -> Tensor:
    """Five of three channels, in [0, 1], [5, 3, 40, 50]."""
    rough = torch.rand(5, 3, HEIGHT // 5, WIDTH // 5, generator=torch.Generator().manual_seed(0))
    return interpolate(rough, (HEIGHT, WIDTH), mode="bilinear")


@pytest.fixture
def draws() -> Tensor:
    return torch.randn(5, NUM_DRAWS, generator=torch.Generator().manual_seed(1))


def test_pixels_come_from_where_scipys_affine_transform_takes_them(
    images: Tensor, draws: Tensor
) -> None:
    """Also those at the border, of images that are no squares."""
    for image, given, found in zip(images, draws, augmented(images, draws), strict=True):
        rotation, scale, stretch, shear, left, up = given.double().tolist()
        cosine, sine = math.cos(math.radians(5 * rotation)), math.sin(math.radians(5 * rotation))
        rotated = np.array([[cosine, sine], [-sine, cosine]])  # of (y, x)
        sheared = np.array([[1, 0], [0.05 * shear, 1]])
        sides = np.exp([0.05 * scale - 0.03 * stretch, 0.05 * scale + 0.03 * stretch])
        matrix = np.diag(sides) @ sheared @ rotated
        middle = np.array([HEIGHT - 1, WIDTH - 1]) / 2
        shift = 0.02 * np.array([up * HEIGHT, left * WIDTH])
        offset = middle + shift - matrix @ middle
        for channel, values in zip(image, found, strict=True):
            theirs = affine_transform(channel.numpy(), matrix, offset, order=1, mode="nearest")
            np.testing.assert_allclose(values, theirs, atol=5e-5)


@pytest.mark.parametrize(
    ("place", "draw", "theirs"),
    [
        (0, 2.0, {"angle": -10.0}),
        (1, -2.0, {"scale": math.exp(0.1)}),
        (3, 2.0, {"shear": [math.degrees(math.atan(0.1)), 0.0]}),
        (4, 3.0, {"translate": [-3.0, 0.0]}),
        (5, -5.0, {"translate": [0.0, 4.0]}),
    ],
    ids=["rotated", "scaled", "sheared", "shifted to the left", "shifted down"],
)
def test_each_draw_does_what_its_name_says_to_torchvision(
    images: Tensor, place: int, draw: float, theirs: dict[str, object]
) -> None:
    given = torch.zeros(5, NUM_DRAWS)
    given[:, place] = draw
    unmoved = {"angle": 0.0, "translate": [0.0, 0.0], "scale": 1.0, "shear": [0.0, 0.0]}
    settings: dict[str, Any] = unmoved | theirs
    expected = affine(images, **settings, interpolation=InterpolationMode.BILINEAR)
    inside = (..., slice(8, -8), slice(8, -8))  # where nothing comes from beyond the border
    assert not torch.allclose(images[inside], expected[inside], atol=0.05)
    torch.testing.assert_close(
        augmented(images, given)[inside], expected[inside], atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_without_a_draw_it_is_the_image_itself(channels: int) -> None:
    images = torch.rand(5, channels, 9, 12, generator=torch.Generator().manual_seed(0))
    images[:, -1] += 0.1  # of what is hardly there colours are rounded
    images /= 1.1
    torch.testing.assert_close(augmented(images, torch.zeros(5, NUM_DRAWS)), images)


@pytest.mark.parametrize("colours", [1, 3])
def test_what_is_transparent_lends_its_colour_to_nothing(colours: int, draws: Tensor) -> None:
    """A white square on transparent black: composited on white, it is white all over."""
    alpha = torch.zeros(5, 1, HEIGHT, WIDTH)
    alpha[..., 10:30, 10:40] = 1
    images = torch.cat([alpha.expand(-1, colours, -1, -1), alpha], dim=1)
    found = augmented(images, draws)
    colour, opacity = found[:, :-1], found[:, -1:]
    assert ((opacity > 0) & (opacity < 1)).any()
    composited = colour * opacity + (1 - opacity)
    torch.testing.assert_close(composited, torch.ones_like(composited))


def test_what_becomes_of_an_image_does_not_depend_on_its_neighbours(
    images: Tensor, draws: Tensor
) -> None:
    together = augmented(images, draws)
    apart = torch.cat([augmented(images[:2], draws[:2]), augmented(images[2:], draws[2:])])
    assert torch.equal(together, apart)


@pytest.mark.parametrize(
    ("step", "count"), [(0, 5), (8, 5), (9, 0), (11, 0)], ids=["first", "last of", "after", "last"]
)
def test_a_step_learns_from_the_images_of_its_batch_as_they_were_augmented(
    step: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both what the encoder sees and what is to be reconstructed: 5 of 16, in 9 of 12 steps."""
    config = tiny_config(tmp_path / "run", augment_share=0.3, augment_until=0.75)
    images = load_images(config.data, config.seed)
    training = Training(config, images, start_accelerator(config))
    seen, wanted = [], []
    forward, sample_nats = VAE.forward, VAE.sample_nats

    def note_seen(vae: VAE, images: Tensor, noise: Tensor) -> VAEOutput:
        seen.append(images)
        return forward(vae, images, noise)

    def note_wanted(vae: VAE, output: VAEOutput, images: Tensor) -> Tensor:
        wanted.append(images)
        return sample_nats(vae, output, images)

    monkeypatch.setattr(VAE, "forward", note_seen)
    monkeypatch.setattr(VAE, "sample_nats", note_wanted)
    order = torch.arange(len(images.train.pixels)).numpy()
    training.stepper.start_epoch(order, 0, training.losses[:0])
    training.stepper.advance(step)
    (seen_images,), (wanted_images,) = seen, wanted
    batch = as_floats(torch.from_numpy(images.train.pixels[:16]))
    noise = normal_noise(
        (5, NUM_DRAWS), config.seed, Stream.AUGMENTATION, step, training.accelerator.device
    )
    expected = torch.cat([augmented(batch[:count], noise[:count].cpu()), batch[count:]])
    moved = (expected - batch).abs().amax(dim=(1, 2, 3)) > 0.01
    assert moved.tolist() == [place < count for place in range(16)]
    torch.testing.assert_close(seen_images.cpu(), expected)
    assert torch.equal(wanted_images, seen_images)
