"""Images rotated, scaled and shifted a little: more of its kind than a small set has."""

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from vaekit.config import TrainConfig, settled

# Standard deviations, small beside what tells classes apart.
ROTATION = math.radians(5)
SCALE = 0.05  # of the logarithm of both sides
STRETCH = 0.03  # of the logarithm of the width, of which the height has the inverse
SHEAR = 0.05  # sideways, for each pixel of height
SHIFT = 0.02  # of a side
NUM_DRAWS = 6  # for each image: rotation, scale, stretch, shear, shift to the left and upwards
WITH_ALPHA = (2, 4)  # channels, of which alpha is the last


def augmentation_told(config: TrainConfig, words: str) -> str:
    """`words` for the augmentation of a settled config, and of how much it is; '' without any."""
    if not settled(config.augment):
        return ""
    share, until = settled(config.augment_share), settled(config.augment_until)
    images = "" if share == 1 else f"{100 * share:g} % of them"
    steps = "" if until == 1 else f"until {100 * until:g} % of the run"
    extent = ", ".join(part for part in (images, steps) if part)
    return f"{words} ({extent})" if extent else words


def augmented_in_part(images: Tensor, draws: Tensor) -> Tensor:
    """`images` [B, C, H, W], the first of them `augmented`: as many as there are draws."""
    count = len(draws)
    if count == 0:
        return images
    return torch.cat([augmented(images[:count], draws), images[count:]])


def augmented(images: Tensor, draws: Tensor) -> Tensor:
    """`images` [B, C, H, W] in [0, 1], each as its standard normal `draws` [B, NUM_DRAWS] say.

    They are rotated, sheared, scaled and stretched about their middle, and shifted. Pixels are
    interpolated linearly; beyond the border, those at the border are repeated. What becomes of an
    image depends on its own pixels and draws alone. Draws of 0 leave it as it is, but for the
    rounding of float32, and for colours where it is wholly transparent.
    """
    grid = _grid(images, draws)
    if images.shape[1] not in WITH_ALPHA:
        return _sampled(images, grid)
    # As Pillow resizes: what is transparent has a colour, too, which no neighbour is to take.
    alpha = images[:, -1:]
    sampled = _sampled(torch.cat([images[:, :-1] * alpha, alpha], dim=1), grid)
    alpha = sampled[:, -1:]
    colours = torch.where(alpha > 0, sampled[:, :-1] / alpha, 0).clamp(max=1)
    return torch.cat([colours, alpha], dim=1)


def _grid(images: Tensor, draws: Tensor) -> Tensor:
    """Where each pixel comes from, [B, H, W, 2], in halves of the width and of the height."""
    height, width = images.shape[2:]
    rotation, scale, stretch, shear, left, up = draws[:, :, None, None].unbind(dim=1)
    y = _middles(height, images)[:, None] * height
    x = _middles(width, images)[None, :] * width
    cosine, sine = torch.cos(ROTATION * rotation), torch.sin(ROTATION * rotation)
    x, y = cosine * x - sine * y, sine * x + cosine * y
    x = torch.exp(SCALE * scale + STRETCH * stretch) * (x + SHEAR * shear * y)
    y = torch.exp(SCALE * scale - STRETCH * stretch) * y
    return torch.stack([x / width + 2 * SHIFT * left, y / height + 2 * SHIFT * up], dim=3)


def _middles(side: int, images: Tensor) -> Tensor:
    """The middles of a side's pixels, [side], from -1 to 1."""
    return (2 * torch.arange(side, device=images.device, dtype=images.dtype) + 1) / side - 1


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    return grid_sample(images, grid, padding_mode="border", align_corners=False)
