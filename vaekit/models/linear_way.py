"""A linear way beside a network, to latents and back, which starts as principal components.

A linear VAE of Gaussian pixels is probabilistic PCA (Tipping and Bishop, 1999; Lucas and others,
2019): with the network's share zero at first, training starts from that solution, not from noise.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, linear, pad

from vaekit.images.mapped import PixelArray
from vaekit.images.pixels import ImageShape, as_floats

# Shapes in comments: N images, C channels, H height, W width, L latent dimensions, D values of an
# image made small.

LARGEST_SIDE = 32  # pixels that the longer side of a small image has at most
# Adam moves a weight by about its rate a step, whatever its size. These are a hundredth as large
# as a network's, and would be lost in noise before the network has learnt anything.
GAIN = 0.03
# Values that components are fitted on at most, 64 MB as float32: each start does that anew, a
# resumed one, too, which takes its weights from the checkpoint afterwards.
MAX_FITTED = 2**24
MIN_VARIANCE = 1e-6  # of a pixel in [0, 1], a quarter of the step between two of 256 levels squared
BATCH_SIZE = 500


class LinearEncoder(nn.Module):
    """Images [N, C, H, W] in [0, 1] to a share [N, L] of the latents' means; at first zero."""

    def __init__(self, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__()
        small = small_shape(image_shape)
        self.factor = factor_of(image_shape)
        self.centre = nn.Parameter(torch.full(small, 0.5))
        self.weight = nn.Parameter(torch.zeros(latent_dim, math.prod(small)))

    def forward(self, images: Tensor) -> Tensor:
        centred = made_small(images, self.factor) - self.centre
        return linear(centred.flatten(start_dim=1), GAIN * self.weight)


class LinearDecoder(nn.Module):
    """Latents [N, L] to a share of the outputs [N, C, H, W]; at first zero."""

    def __init__(self, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__()
        self._small, self._factor = small_shape(image_shape), factor_of(image_shape)
        self._size = image_shape[1:]
        self.weight = nn.Parameter(torch.zeros(math.prod(self._small), latent_dim))
        self.centre = nn.Parameter(torch.zeros(self._small))

    def forward(self, latents: Tensor) -> Tensor:
        deviations = linear(latents, GAIN * self.weight).reshape(-1, *self._small)
        return made_large(deviations.float() + self.centre, self._factor, self._size)


def linear_way_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Those of the linear ways within `module`."""
    ways = (each for each in module.modules() if isinstance(each, LinearEncoder | LinearDecoder))
    return [parameter for way in ways for parameter in way.parameters()]


class Start(NamedTuple):
    """What goes with components in probabilistic PCA."""

    log_variances: Tensor  # [L], of the posterior
    noise_variance: float  # of a pixel


@torch.no_grad()
def start_as_components(
    encoder: LinearEncoder, decoder: LinearDecoder, pixels: PixelArray
) -> Start:
    """Give the two the most likely weights of a linear VAE of `pixels` [N, C, H, W].

    Of a large set evenly spaced images count, as many as `MAX_FITTED` allows. Latents beyond the
    components that the images have are left to the network.
    """
    latent_dim, num_values = encoder.weight.shape
    start = Start(torch.zeros(latent_dim), 1.0)
    num_fitted = min(len(pixels), MAX_FITTED // num_values)
    num_components = min(latent_dim, num_fitted - 1, num_values)
    if num_components == 0:
        return start
    chosen = np.arange(num_fitted) * len(pixels) // num_fitted
    small, variance = _survey(pixels, chosen, encoder.factor)
    for part in (encoder, decoder):
        part.centre.copy_(torch.from_numpy(small.mean(axis=0)).reshape(part.centre.shape))
    if variance < MIN_VARIANCE:
        return start
    fitted = PCA(num_components, random_state=0).fit(small)
    directions = torch.from_numpy(fitted.components_).float()  # [L, D], of length one
    # A value of a small image stands for this many pixels, and a direction is as long in both.
    variances = encoder.factor**2 * torch.from_numpy(fitted.explained_variance_).float()
    num_left = max(1, pixels[0].size - num_components)
    noise = max((pixels[0].size * variance - float(variances.sum())) / num_left, MIN_VARIANCE)
    spreads = (variances - noise).clamp(min=0).sqrt()
    decoder.weight[:, :num_components] = (directions.T * spreads) / (GAIN * encoder.factor)
    gains = encoder.factor * spreads / variances.clamp(min=MIN_VARIANCE)
    encoder.weight[:num_components] = directions * gains[:, None] / GAIN
    start.log_variances[:num_components] = (noise / variances).log().clamp(max=0)
    return start._replace(noise_variance=noise)


def made_small(images: Tensor, factor: int) -> Tensor:
    """Means over squares of `factor` pixels a side; at the border the last pixels are repeated."""
    height, width = images.shape[-2:]
    border = (0, -width % factor, 0, -height % factor)
    whole = pad(images, border, mode="replicate") if any(border) else images
    return avg_pool2d(whole, factor) if factor > 1 else whole


def made_large(small: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `made_small` where squares are of one value, of images of `size`."""
    if factor == 1:
        return small
    channels, height, width = small.shape[1:]
    # Not by interpolate: its ONNX operator has an attribute that older runtimes don't know.
    squares = small.reshape(-1, channels, height, 1, width, 1)
    squares = squares.expand(-1, -1, -1, factor, -1, factor)
    large = squares.reshape(-1, channels, height * factor, width * factor)
    return large[..., : size[0], : size[1]]


def factor_of(image_shape: ImageShape, largest_side: int = LARGEST_SIDE) -> int:
    return math.ceil(max(image_shape[1:]) / largest_side)


def small_shape(image_shape: ImageShape, largest_side: int = LARGEST_SIDE) -> ImageShape:
    channels, height, width = image_shape
    factor = factor_of(image_shape, largest_side)
    return channels, math.ceil(height / factor), math.ceil(width / factor)


def _survey(
    pixels: PixelArray, chosen: NDArray[np.int64], factor: int
) -> tuple[NDArray[np.float32], float]:
    """The chosen images, two or more, made small as rows [N, D], and the variance of a pixel."""
    rows, total, squares = [], np.zeros(pixels[0].size), 0.0
    for start in range(0, len(chosen), BATCH_SIZE):
        batch = as_floats(torch.from_numpy(pixels[chosen[start : start + BATCH_SIZE]]))
        rows.append(made_small(batch, factor).flatten(start_dim=1).numpy())
        total += batch.sum(dim=0, dtype=torch.float64).flatten().numpy()
        squares += float(batch.square().sum(dtype=torch.float64))
    num_images = len(chosen)
    variance = (squares - float(np.square(total).sum()) / num_images) / total.size
    return np.concatenate(rows), max(variance / (num_images - 1), 0.0)
