"""What is left `auto` in the settings of a model, settled by the images."""

import math
from dataclasses import replace
from typing import TypeVar

from vaekit.config import ModelConfig, ToPixels, settled
from vaekit.images.pixels import ImageShape

Value = TypeVar("Value")

# The table against the reference is of these sets.
SETS_OF_REFERENCE = ("mnist", "fashion-mnist", "kmnist")

REFERENCE = ModelConfig(
    architecture="reference",
    likelihood="bernoulli",
    latent_dim=10,
    width=None,
    conv_channels=(16, 32),
    hidden_dims=(512, 256),
    to_pixels="transposed",
    thumbnail=False,
    block_norm=False,
    block_bottleneck=False,
)
DEFAULT_WIDTH = 32
MIN_LATENT_DIM, MAX_LATENT_DIM = 16, 64


def settle_model(
    config: ModelConfig, image_shape: ImageShape, image_set: str | None = None
) -> ModelConfig:
    """`config` with nothing left `auto`, for images of `image_shape`, perhaps of a named set."""
    architecture = config.architecture
    if architecture == "auto":
        of_conv = (config.thumbnail, config.block_norm, config.block_bottleneck)
        is_conv = config.to_pixels == "shuffled" or True in of_conv
        is_left_open = config.width in (None, "auto") and not is_conv
        is_reference = is_left_open and image_set in SETS_OF_REFERENCE
        is_given = any(isinstance(it, tuple) for it in (config.conv_channels, config.hidden_dims))
        architecture = "reference" if is_reference or is_given else "conv"
    likelihood = config.likelihood
    if likelihood == "auto":
        likelihood = "bernoulli" if image_shape[0] == 1 else "gaussian"
    if architecture == "reference":
        return ModelConfig(
            architecture=architecture,
            likelihood=likelihood,
            latent_dim=_given(config.latent_dim, REFERENCE.latent_dim),
            width=None,
            conv_channels=_given(config.conv_channels, REFERENCE.conv_channels),
            hidden_dims=_given(config.hidden_dims, REFERENCE.hidden_dims),
            to_pixels=REFERENCE.to_pixels,
            thumbnail=REFERENCE.thumbnail,
            block_norm=REFERENCE.block_norm,
            block_bottleneck=REFERENCE.block_bottleneck,
        )
    conv = ModelConfig(
        architecture=architecture,
        likelihood=likelihood,
        latent_dim=_given(config.latent_dim, latent_dim_for(image_shape)),
        width=_given(config.width, DEFAULT_WIDTH),
        conv_channels=None,
        hidden_dims=None,
        # Means of pixels want brightness and contrast, which group norm takes away.
        thumbnail=_given(config.thumbnail, likelihood != "bernoulli"),
        block_norm=_given(config.block_norm, likelihood == "bernoulli"),
        block_bottleneck=_given(config.block_bottleneck, True),
    )
    # Who starts from components overfits the sooner with shuffled pixels: seen on icons.
    to_pixels: ToPixels = "transposed" if starts_from_components(conv) else "shuffled"
    return replace(conv, to_pixels=_given(config.to_pixels, to_pixels))


def starts_from_components(config: ModelConfig) -> bool:
    """Whether training begins at the principal components of the images.

    Outputs of Bernoulli pixels are logits, not the means that components would give. `config` is
    settled.
    """
    has_means = config.architecture == "conv" and config.likelihood != "bernoulli"
    return has_means and not settled(config.thumbnail)


def latent_dim_for(image_shape: ImageShape) -> int:
    """A power of two that grows as the side of the images: 16 at 32x32, 32 at 64x64 in colour."""
    side = math.sqrt(math.prod(image_shape))
    power_of_two = 1 << max(0, round(math.log2(0.3 * side)))
    return min(max(power_of_two, MIN_LATENT_DIM), MAX_LATENT_DIM)


def _given(value: Value, default: Value) -> Value:
    return default if value is None or value == "auto" else value
