"""Images moved a little: by how much, and of what they depend."""

import math
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import affine

from vaekit.images.pixels import as_floats
from vaekit.images.sets import load_images
from vaekit.models.vae import VAE, VAEOutput
from vaekit.training.moves import NUM_DRAWS, moved
from vaekit.training.noise import Stream, normal_noise
from vaekit.training.ranks import start_accelerator
from vaekit.training.state import Training

HEIGHT, WIDTH = 40, 50
BORDER = 8  # pixels, beyond which nothing comes from outside


@pytest.fixture
def images() -> Tensor:
    """Five of three channels, smooth, in [0, 1], [5, 3, 40, 50]."""
    rough = torch.rand(5, 3, HEIGHT // 5, WIDTH // 5, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(rough, (HEIGHT, WIDTH), mode="bilinear")


def draws(index: int, value: float) -> Tensor:
    given = torch.zeros(5, NUM_DRAWS)
    given[:, index] = value
    return given


@pytest.mark.parametrize(
    ("given", "angle", "translate", "scale", "shear"),
    [
        (draws(0, 2.0), -10.0, [0.0, 0.0], 1.0, 0.0),
        (draws(1, -2.0), 0.0, [0.0, 0.0], math.exp(0.1), 0.0),
        (draws(3, 2.0), 0.0, [0.0, 0.0], 1.0, math.degrees(math.atan(0.1))),
        (draws(4, 3.0), 0.0, [-3.0, 0.0], 1.0, 0.0),
        (draws(5, -5.0), 0.0, [0.0, 4.0], 1.0, 0.0),
    ],
    ids=["turned", "scaled", "sheared", "shifted to the left", "shifted down"],
)
def test_an_image_is_moved_as_torchvision_moves_it_with_its_sides_as_long_as_they_are(
    images: Tensor,
    given: Tensor,
    angle: float,
    translate: list[float],
    scale: float,
    shear: float,
) -> None:
    theirs = affine(
        images,
        angle=angle,
        translate=translate,
        scale=scale,
        shear=[shear, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    inside = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    assert not torch.allclose(images[inside], theirs[inside], atol=0.05)
    torch.testing.assert_close(moved(images, given)[inside], theirs[inside], atol=1e-3, rtol=0)


def test_a_stretched_image_is_as_much_narrower_as_it_is_higher(images: Tensor) -> None:
    blank = torch.zeros_like(images[:, :1])
    blank[..., 15:25, 20:30] = 1
    stretched = moved(blank, draws(2, 10.0))
    width, height = (stretched.amax(dim=side).gt(0.5).sum(dim=2).float() for side in (2, 3))
    assert width.unique().tolist() == [pytest.approx(10 * math.exp(-0.3), abs=1)]
    assert height.unique().tolist() == [pytest.approx(10 * math.exp(0.3), abs=1)]


def test_without_a_move_it_is_the_image_itself(images: Tensor) -> None:
    torch.testing.assert_close(moved(images, torch.zeros(5, NUM_DRAWS)), images)


def test_at_the_border_pixels_are_repeated_so_that_no_value_is_new(images: Tensor) -> None:
    given = torch.randn(5, NUM_DRAWS, generator=torch.Generator().manual_seed(1))
    shifted = moved(images, 3 * given)
    low, high = images.amin(dim=(2, 3)), images.amax(dim=(2, 3))
    assert (shifted.amin(dim=(2, 3)) >= low - 1e-6).all()
    assert (shifted.amax(dim=(2, 3)) <= high + 1e-6).all()


def test_what_becomes_of_an_image_does_not_depend_on_its_neighbours(images: Tensor) -> None:
    given = torch.randn(5, NUM_DRAWS, generator=torch.Generator().manual_seed(1))
    together = moved(images, given)
    apart = torch.cat([moved(images[:2], given[:2]), moved(images[2:], given[2:])])
    assert torch.equal(together, apart)


def test_a_step_learns_from_the_images_of_its_batch_as_they_were_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both what the encoder sees and what is to be reconstructed."""
    config = tiny_config(tmp_path / "run", augment=True)
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
    training.stepper.advance(7)
    (seen_images,), (wanted_images,) = seen, wanted
    count = len(seen_images)
    batch = as_floats(torch.from_numpy(images.train.pixels[:count]))
    noise = normal_noise(
        (count, NUM_DRAWS), config.seed, Stream.MOVES, 7, training.accelerator.device
    )
    assert not torch.equal(seen_images.cpu(), batch)
    torch.testing.assert_close(seen_images.cpu(), moved(batch, noise.cpu()))
    assert torch.equal(wanted_images, seen_images)
