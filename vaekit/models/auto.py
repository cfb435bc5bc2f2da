"""What is left `auto` in the settings of a model, settled by the images."""

import math
from dataclasses import replace

from vaekit.config import ModelConfig
from vaekit.images.pixels import ImageShape

# The table against the reference is of these sets.
SETS_OF_REFERENCE = ("mnist", "fashion-mnist", "kmnist")

REFERENCE = ModelConfig(
    architecture="reference",
    likelihood="bernoulli",
    latent_dim=10,
    conv_channels=(16, 32),
    hidden_dims=(512, 256),
)
DEFAULT_WIDTH = 32
MIN_LATENT_DIM, MAX_LATENT_DIM = 16, 64


def settle(
    config: ModelConfig, image_shape: ImageShape, image_set: str | None = None
) -> ModelConfig:
    """`config` with nothing left `auto`, for images of `image_shape`, perhaps of a named set."""
    architecture = config.architecture
    if architecture == "auto":
        is_reference = config.width is None and image_set in SETS_OF_REFERENCE
        has_its_flags = config.conv_channels is not None or config.hidden_dims is not None
        architecture = "reference" if is_reference or has_its_flags else "conv"
    likelihood = config.likelihood
    if likelihood == "auto":
        likelihood = "bernoulli" if image_shape[0] == 1 else "gaussian"
    latent_dim = config.latent_dim
    if architecture == "reference":
        return ModelConfig(
            architecture=architecture,
            likelihood=likelihood,
            latent_dim=REFERENCE.latent_dim if latent_dim == "auto" else latent_dim,
            conv_channels=config.conv_channels or REFERENCE.conv_channels,
            hidden_dims=config.hidden_dims or REFERENCE.hidden_dims,
        )
    return replace(
        config,
        architecture=architecture,
        likelihood=likelihood,
        latent_dim=latent_dim_for(image_shape) if latent_dim == "auto" else latent_dim,
        width=config.width or DEFAULT_WIDTH,
    )


def latent_dim_for(image_shape: ImageShape) -> int:
    """A power of two that grows as the side of the images: 16 at 32x32, 32 at 64x64 in colour."""
    side = math.sqrt(math.prod(image_shape))
    power_of_two = 1 << max(0, round(math.log2(0.3 * side)))
    return min(max(power_of_two, MIN_LATENT_DIM), MAX_LATENT_DIM)
