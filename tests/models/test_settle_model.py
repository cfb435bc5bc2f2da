"""What is left `auto` of a model follows from its images and from the flags that are given."""

import pytest

from vaekit.config import ModelConfig
from vaekit.errors import UserError
from vaekit.models.settle import REFERENCE, settle_model
from vaekit.models.vae import VAE, num_parameters


@pytest.mark.parametrize(
    ("config", "channels", "to_pixels"),
    [
        (ModelConfig("reference"), 1, "transposed"),
        (ModelConfig("conv"), 1, "shuffled"),
        (ModelConfig("conv"), 3, "shuffled"),
        (ModelConfig("conv", thumbnail=False), 1, "shuffled"),
        (ModelConfig("conv", thumbnail=False), 3, "transposed"),
        (ModelConfig("conv", to_pixels="transposed"), 1, "transposed"),
        (ModelConfig("conv", to_pixels="shuffled"), 3, "shuffled"),
    ],
)
def test_pixels_are_shuffled_where_a_model_starts_from_random_weights(
    config: ModelConfig, channels: int, to_pixels: str
) -> None:
    assert settle_model(config, (channels, 28, 28)).to_pixels == to_pixels


@pytest.mark.parametrize(
    ("config", "channels", "has_one"),
    [
        (ModelConfig(), 3, True),
        (ModelConfig("conv"), 1, False),
        (ModelConfig("conv", "gaussian"), 1, True),
        (ModelConfig("conv", "logistic"), 3, True),
        (ModelConfig("conv", "bernoulli"), 3, False),
        (ModelConfig("conv", thumbnail=True), 1, True),
        (ModelConfig("conv", thumbnail=False), 3, False),
        (ModelConfig("reference", "gaussian"), 3, False),
    ],
)
def test_an_encoder_sees_a_thumbnail_where_outputs_are_means_of_pixels(
    config: ModelConfig, channels: int, has_one: bool
) -> None:
    shape = (channels, 28, 28)
    assert settle_model(config, shape).thumbnail == has_one
    assert any("thumbnail" in name for name in VAE(config, shape).state_dict()) == has_one


@pytest.mark.parametrize(
    ("config", "channels", "is_normed"),
    [
        (ModelConfig("conv"), 1, True),
        (ModelConfig(), 3, False),
        (ModelConfig("conv", "bernoulli"), 3, True),
        (ModelConfig("conv", "gaussian", block_norm=True), 3, True),
        (ModelConfig("conv", block_norm=False), 1, False),
        (ModelConfig("reference"), 1, False),
    ],
)
def test_a_norm_follows_the_decoders_blocks_where_outputs_are_logits(
    config: ModelConfig, channels: int, is_normed: bool
) -> None:
    shape = (channels, 28, 28)
    assert settle_model(config, shape).block_norm == is_normed
    assert ("dec.stages.0.4.weight" in VAE(config, shape).state_dict()) == is_normed


@pytest.mark.parametrize(
    ("config", "channels", "inner"),
    [
        (ModelConfig("conv", width=6), 1, 12),
        (ModelConfig("conv", width=6), 3, 12),
        (ModelConfig("conv", width=1), 1, 2),
        (ModelConfig("conv", width=6, block_bottleneck=False), 1, 24),
    ],
)
def test_the_encoders_residual_blocks_have_half_as_many_channels_inside(
    config: ModelConfig, channels: int, inner: int
) -> None:
    width = config.width
    assert isinstance(width, int)
    weights = VAE(config, (channels, 28, 28)).state_dict()
    assert weights["enc.stages.2.3.conv.weight"].shape[:2] == (inner, 4 * width)
    assert weights["enc.stages.2.3.norm2.weight"].shape == (inner,)
    assert weights["enc.stages.2.3.conv2.weight"].shape[:2] == (4 * width, inner)
    assert weights["dec.stages.0.3.conv.weight"].shape[:2] == (2 * width, 2 * width)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist"])
def test_mnist_and_its_kin_get_the_reference(name: str) -> None:
    assert settle_model(ModelConfig(), (1, 28, 28), name) == REFERENCE


@pytest.mark.parametrize(
    ("config", "image_shape", "name", "wanted"),
    [
        (ModelConfig(), (1, 8, 8), "digits", ("conv", "bernoulli", 16)),
        (ModelConfig(), (1, 32, 32), "folder", ("conv", "bernoulli", 16)),
        (ModelConfig(), (3, 64, 64), "folder", ("conv", "gaussian", 32)),
        (ModelConfig(), (3, 128, 128), "folder", ("conv", "gaussian", 64)),
        (ModelConfig(), (4, 1024, 1024), "folder", ("conv", "gaussian", 64)),
        (ModelConfig(conv_channels=(4,)), (3, 64, 64), "folder", ("reference", "gaussian", 10)),
        (ModelConfig(width=8), (1, 28, 28), "mnist", ("conv", "bernoulli", 16)),
        (ModelConfig(thumbnail=True), (1, 28, 28), "mnist", ("conv", "bernoulli", 16)),
        (ModelConfig(block_norm=True), (1, 28, 28), "mnist", ("conv", "bernoulli", 16)),
        (ModelConfig(block_bottleneck=True), (1, 28, 28), "mnist", ("conv", "bernoulli", 16)),
        (ModelConfig("conv"), (1, 28, 28), "mnist", ("conv", "bernoulli", 16)),
        (ModelConfig("reference"), (1, 32, 32), "folder", ("reference", "bernoulli", 10)),
        (ModelConfig(likelihood="logistic"), (1, 8, 8), "digits", ("conv", "logistic", 16)),
        (ModelConfig(latent_dim=3), (1, 8, 8), "digits", ("conv", "bernoulli", 3)),
    ],
)
def test_the_rest_follows_from_size_and_channels(
    config: ModelConfig,
    image_shape: tuple[int, int, int],
    name: str,
    wanted: tuple[str, str, int],
) -> None:
    found = settle_model(config, image_shape, name)
    assert (found.architecture, found.likelihood, found.latent_dim) == wanted
    assert settle_model(found, image_shape, name) == found


@pytest.mark.parametrize(
    ("channels", "side", "at_most"),
    [(1, 8, 2e6), (1, 28, 2e6), (3, 32, 2e6), (3, 48, 2e6), (4, 64, 2e6), (4, 128, 4e6)],
)
def test_the_default_is_small(channels: int, side: int, at_most: float) -> None:
    assert num_parameters(VAE(ModelConfig(), (channels, side, side))) <= at_most


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"architecture": "conv", "conv_channels": (8,)}, r"conv_channels \[8\]: is of .* ref"),
        ({"architecture": "conv", "hidden_dims": (8,)}, r"hidden_dims \[8\]: is of .* reference"),
        ({"architecture": "reference", "width": 8}, "width 8: is of the architecture conv"),
        ({"width": 8, "hidden_dims": (8,)}, "width 8: is of the architecture conv, and"),
        (
            {"architecture": "reference", "to_pixels": "shuffled"},
            "to_pixels shuffled: is of the architecture conv, this is reference",
        ),
        ({"hidden_dims": (8,), "to_pixels": "shuffled"}, "to_pixels shuffled: is of"),
        ({"architecture": "reference", "thumbnail": True}, "thumbnail true: is of the arch.* conv"),
        ({"conv_channels": (8,), "thumbnail": True}, "thumbnail true: is of"),
        ({"hidden_dims": (8,), "block_norm": True}, "block_norm true: is of the architecture conv"),
        ({"hidden_dims": (8,), "block_bottleneck": True}, "block_bottleneck true: is of the arch"),
    ],
)
def test_a_flag_of_the_other_architecture_is_refused(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        ModelConfig(**settings)  # type: ignore[arg-type]
