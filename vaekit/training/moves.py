"""Images moved a little, each in a way of its own: more of its kind than a small set has."""

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

# Standard deviations. What they are of is what another photograph or drawing of the same thing
# differs by: none turns a letter into another one, nor moves one out of the picture.
ROTATION = math.radians(5)
SCALE = 0.05  # of the logarithm of both sides
STRETCH = 0.03  # of the logarithm of the width, of which the height has the inverse
SHEAR = 0.05  # of the width for each height
SHIFT = 0.02  # of a side
NUM_DRAWS = 6  # for each image


def moved(images: Tensor, draws: Tensor) -> Tensor:
    """`images` [B, C, H, W] turned, scaled, stretched, sheared and shifted about their middle.

    How far by standard normal `draws` [B, 6]. Pixels are interpolated linearly; where they would
    come from beyond the border, that is repeated. What becomes of an image depends on its own
    pixels and draws alone.
    """
    height, width = images.shape[2:]
    turn, scale, stretch, shear, right, down = draws[:, :, None, None].unbind(dim=1)
    # Where each pixel comes from, in halves of a side about the middle, as grid_sample counts.
    y = _places(height, images)[:, None] * height
    x = _places(width, images)[None, :] * width
    cosine, sine = torch.cos(ROTATION * turn), torch.sin(ROTATION * turn)
    turned_x, turned_y = cosine * x - sine * y, sine * x + cosine * y
    from_x = torch.exp(SCALE * scale + STRETCH * stretch) * (turned_x + SHEAR * shear * turned_y)
    from_y = torch.exp(SCALE * scale - STRETCH * stretch) * turned_y
    places = [from_x / width + 2 * SHIFT * right, from_y / height + 2 * SHIFT * down]
    grid = torch.stack(places, dim=3)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def _places(side: int, images: Tensor) -> Tensor:
    """The middles of a side's pixels, [side], from -1 to 1."""
    return (2 * torch.arange(side, device=images.device, dtype=images.dtype) + 1) / side - 1
