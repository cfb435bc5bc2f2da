"""What is left `auto` of a run follows from the number of its images, by one rule."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vaekit.config import Auto, ModelConfig, TrainConfig
from vaekit.errors import UserError
from vaekit.images.image_set import Images, ImageSet
from vaekit.models.settle import starts_from_components
from vaekit.training.settle import require_warmup_within, settle, too_few_steps

COMPONENTS = ModelConfig("conv", thumbnail=False)


def images_of(count: int, channels: int = 1) -> Images:
    """So many of 28x28 pixels, which take no memory."""
    pixels = np.broadcast_to(np.zeros((), np.uint8), (count, channels, 28, 28))
    return Images(ImageSet(pixels, None), ImageSet(pixels[:1], None), ())


def test_a_set_of_mnists_size_is_trained_as_ever() -> None:
    config = settle(TrainConfig(), images_of(60_000))
    assert (config.epochs, config.batch_size) == (20, 128)
    assert (config.warmup_steps, config.ema_decay) == (200, 0.999)


@pytest.mark.parametrize("num_images", [1, 7, 16, 100, 975, 1_438, 3_640, 10_000, 60_000, 10**7])
def test_any_set_gets_its_steps(num_images: int) -> None:
    config = settle(TrainConfig(), images_of(num_images))
    steps_per_epoch = num_images // config.batch_size
    num_steps = config.epochs * steps_per_epoch
    assert num_steps >= 500
    assert 20 <= config.epochs <= max(40, 500 / steps_per_epoch + 1)
    assert num_steps >= 2_000 or config.epochs >= 40
    assert config.warmup_steps <= num_steps / 20
    assert config.batch_size <= 128
    assert steps_per_epoch >= min(24, num_images // 16)
    assert settle(config, images_of(num_images)) == config
    assert too_few_steps(config, num_images) is None


@pytest.mark.parametrize(
    ("num_images", "epochs"), [(16, 100), (200, 20), (1_096, 20), (9_999, 20), (10_000, 26)]
)
def test_a_small_set_that_starts_from_components_is_seen_less_often(
    num_images: int, epochs: int
) -> None:
    from_components = TrainConfig(model=COMPONENTS, augment=False)
    config = settle(from_components, images_of(num_images, channels=3))
    assert config.epochs == epochs
    assert config.epochs * (num_images // config.batch_size) >= 100
    assert too_few_steps(config, num_images) is None
    grey = settle(from_components, images_of(num_images))
    assert (config.batch_size, config.epochs <= grey.epochs) == (grey.batch_size, True)


@pytest.mark.parametrize(
    ("model", "num_images", "from_components"),
    [
        (ModelConfig("conv"), 999, True),
        (ModelConfig("conv"), 1_000, False),
        (ModelConfig("conv", "logistic"), 999, True),
        (ModelConfig("conv", "bernoulli"), 999, False),
        (ModelConfig("reference"), 999, False),
        (ModelConfig(thumbnail=True), 999, False),
        (COMPONENTS, 60_000, True),
    ],
)
def test_few_images_are_begun_with_from_their_components(
    model: ModelConfig, num_images: int, from_components: bool
) -> None:
    config = settle(TrainConfig(model=model), images_of(num_images, channels=3))
    assert starts_from_components(config.model) == from_components


@pytest.mark.parametrize(
    ("model", "num_images", "is_narrow"),
    [
        (ModelConfig("conv"), 9_999, False),
        (ModelConfig("conv"), 10_000, True),
        (ModelConfig("conv", block_bottleneck=True), 9_999, True),
        (ModelConfig("conv", block_bottleneck=False), 10_000, False),
        (ModelConfig("reference"), 10_000, False),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_many_images_are_learnt_with_narrow_blocks(
    model: ModelConfig, channels: int, num_images: int, is_narrow: bool
) -> None:
    config = settle(TrainConfig(model=model), images_of(num_images, channels))
    assert config.model.block_bottleneck == is_narrow


@pytest.mark.parametrize(
    ("model", "channels", "num_images", "rate"),
    [
        (ModelConfig("reference"), 1, 60_000, 1e-3),
        (ModelConfig("reference"), 1, 500, 1e-3),
        (ModelConfig("conv"), 1, 60_000, 4e-3),
        (ModelConfig("conv"), 1, 1_000, 2e-3),
        (ModelConfig("conv"), 3, 60_000, 1e-3),
    ],
)
def test_a_normed_net_takes_the_higher_rate_that_its_batch_bears(
    model: ModelConfig, channels: int, num_images: int, rate: float
) -> None:
    images = images_of(num_images, channels)
    assert settle(TrainConfig(model=model), images).learning_rate == rate
    assert settle(TrainConfig(model=model, learning_rate=0.1), images).learning_rate == 0.1


@pytest.mark.parametrize(
    ("config", "channels", "num_images", "expected"),
    [
        (TrainConfig(model=ModelConfig("reference")), 1, 1_000, (0.999, 0.0)),
        (TrainConfig(model=ModelConfig("conv")), 1, 1_000, (0.99, 0.05)),
        (TrainConfig(model=ModelConfig("conv")), 3, 999, (0.999, 8.06)),  # 1,240 steps at 0.001
        (TrainConfig(model=COMPONENTS), 3, 9_999, (0.999, 3.21)),  # 3,120 steps
        (TrainConfig(model=COMPONENTS, learning_rate=0.01), 3, 1_000, (0.999, 0.81)),
        (TrainConfig(model=COMPONENTS, epochs=1, batch_size=500), 3, 1_000, (0.999, 100)),
        (TrainConfig(model=COMPONENTS), 3, 10_000, (0.999, 0.0)),
        (TrainConfig(model=ModelConfig("conv")), 3, 1_000, (0.99, 1.99)),  # 2,015 steps
        (TrainConfig(model=ModelConfig("conv")), 3, 60_000, (0.99, 0.43)),  # 9,360 steps
        (TrainConfig(model=ModelConfig("conv"), epochs=1), 3, 1_000, (0.99, 40)),  # 31 steps
        (TrainConfig(model=ModelConfig("conv"), adam_beta2=0.9), 1, 1_000, (0.9, 0.05)),
        (TrainConfig(model=ModelConfig("conv"), weight_decay=0.0), 1, 1_000, (0.99, 0.0)),
        (TrainConfig(model=ModelConfig("conv"), weight_decay=0.0), 3, 1_000, (0.99, 0.0)),
    ],
)
def test_weights_decay_where_a_net_is_normed_and_most_where_it_would_learn_by_heart(
    config: TrainConfig, channels: int, num_images: int, expected: tuple[float, float]
) -> None:
    config = settle(config, images_of(num_images, channels))
    assert (config.adam_beta2, config.weight_decay) == expected


@pytest.mark.parametrize(
    ("model", "channels", "num_images", "augment"),
    [
        (ModelConfig("conv"), 3, 9_999, True),
        (ModelConfig("conv"), 3, 10_000, False),
        (ModelConfig("conv", "gaussian"), 1, 1_000, True),
        (ModelConfig("conv", "logistic"), 3, 1_000, True),
        (ModelConfig("conv"), 1, 1_000, False),
        (ModelConfig("reference"), 3, 1_000, False),
    ],
)
def test_few_images_of_conv_whose_pixels_have_a_scale_are_augmented_unless_told_otherwise(
    model: ModelConfig, channels: int, num_images: int, augment: bool
) -> None:
    images = images_of(num_images, channels)
    assert settle(TrainConfig(model=model), images).augment is augment
    for given in (True, False):
        assert settle(TrainConfig(model=model, augment=given), images).augment is given


@pytest.mark.parametrize(
    ("config", "num_images", "expected"),
    [
        (TrainConfig(), 60_000, (True, 0.5, 0.75)),  # 9,360 steps
        (TrainConfig(), 1_000, (False, 1, 1)),
        (TrainConfig(), 12_500, (False, 1, 1)),  # 2,037
        (TrainConfig(epochs=5), 60_000, (False, 1, 1)),  # 2,340
        (TrainConfig(epochs=81), 1_000, (True, 0.5, 0.75)),  # 2,511
        (TrainConfig(augment=True), 1_000, (True, 0.5, 0.75)),
        (TrainConfig(augment=False), 60_000, (False, 1, 1)),
        (TrainConfig(augment_share=0.25), 1_000, (True, 0.25, 0.75)),
        (TrainConfig(augment=True, augment_until=1.0), 1_000, (True, 0.5, 1)),
        (TrainConfig(augment_share=1.0, augment_until=1.0), 1_000, (False, 1, 1)),
        (TrainConfig(augment_share=1.0, augment_until=1.0), 60_000, (True, 1, 1)),
    ],
)
def test_some_of_the_images_of_a_long_run_in_grey_are_augmented_until_near_its_end(
    config: TrainConfig, num_images: int, expected: tuple[bool, float, float]
) -> None:
    images = images_of(num_images)
    config = settle(replace(config, model=ModelConfig("conv")), images)
    assert (config.augment, config.augment_share, config.augment_until) == expected
    assert settle(config, images) == config


@pytest.mark.parametrize(
    ("model", "channels"), [(ModelConfig("conv"), 3), (ModelConfig("reference"), 1)]
)
def test_no_long_run_of_another_kind_is_augmented_in_part_unless_told_to(
    model: ModelConfig, channels: int
) -> None:
    images = images_of(60_000, channels)
    config = settle(TrainConfig(model=model), images)
    assert (config.augment, config.augment_share, config.augment_until) == (False, 1, 1)
    assert settle(replace(config, augment="auto"), images) == config
    config = settle(TrainConfig(model=model, augment_share=0.5), images)
    assert (config.augment, config.augment_share, config.augment_until) == (True, 0.5, 1)


@pytest.mark.parametrize(
    ("shares", "channels", "epochs"),
    [
        ({}, 3, 65),
        ({"augment_share": 0.5}, 3, 33),
        ({"augment_until": 0.5}, 3, 33),
        ({}, 1, 40),
        ({"augment_share": 1.0, "augment_until": 1.0}, 1, 80),
    ],
)
def test_a_run_is_longer_only_where_every_image_is_augmented_in_every_step(
    shares: dict[str, float], channels: int, epochs: int
) -> None:
    config = TrainConfig(model=ModelConfig("conv"), augment=True, **shares)
    assert settle(config, images_of(1_000, channels)).epochs == epochs


@pytest.mark.parametrize(
    ("num_images", "channels", "augment", "epochs"),
    [
        (1_000, 3, "auto", 65),
        (1_000, 3, False, 33),
        (1_000, 1, "auto", 40),
        (1_000, 1, True, 40),  # half of them
        (999, 3, "auto", 40),  # from components
        (999, 3, False, 20),
        (9_999, 3, "auto", 26),  # twice the 1,000 steps
        (9_999, 3, False, 20),
        (60_000, 1, True, 20),
    ],
)
def test_augmented_images_are_seen_up_to_twice_as_often(
    num_images: int, channels: int, augment: bool | Auto, epochs: int
) -> None:
    config = TrainConfig(model=ModelConfig("conv"), augment=augment)
    assert settle(config, images_of(num_images, channels)).epochs == epochs


@pytest.mark.parametrize(
    ("model", "channels", "num_images", "temperature"),
    [
        (ModelConfig("reference"), 1, 2_000, 1.0),
        (ModelConfig("conv"), 1, 2_000, 0.6),
        (ModelConfig("conv"), 1, 9_999, 0.6),
        (ModelConfig("conv"), 1, 10_000, 1.0),
        (ModelConfig("conv"), 3, 2_000, 1.0),
        (ModelConfig("conv", "bernoulli"), 3, 2_000, 0.6),
        (ModelConfig("conv", "gaussian"), 1, 2_000, 1.0),
    ],
)
def test_posteriors_are_colder_in_training_where_a_normed_net_says_logits_of_few_images(
    model: ModelConfig, channels: int, num_images: int, temperature: float
) -> None:
    config = settle(TrainConfig(model=model), images_of(num_images, channels))
    assert config.temperature == temperature


@pytest.mark.parametrize(
    "changes",
    [{"free_bits": 0.1}, {"num_samples": 2, "importance_weighted": True}, {"temperature": 1.0}],
    ids=lambda changes: next(iter(changes)),
)
def test_posteriors_are_as_warm_as_they_are_where_a_step_has_another_kl(
    changes: dict[str, Any],
) -> None:
    config = TrainConfig(model=ModelConfig("conv"), **changes)
    assert settle(config, images_of(9_999)).temperature == 1


@pytest.mark.parametrize(
    ("config", "channels", "gradient"),
    [
        (TrainConfig(model=ModelConfig("reference")), 1, "exact"),
        (TrainConfig(model=ModelConfig("conv")), 1, "path"),
        (TrainConfig(model=ModelConfig("conv")), 3, "exact"),
        (TrainConfig(model=ModelConfig("conv"), free_bits=0.1), 1, "exact"),
        (
            TrainConfig(model=ModelConfig("conv"), num_samples=2, importance_weighted=True),
            1,
            "exact",
        ),
        (TrainConfig(model=ModelConfig("conv"), kl_gradient="exact"), 1, "exact"),
        (TrainConfig(model=ModelConfig("reference"), kl_gradient="path"), 1, "path"),
    ],
)
def test_the_gradient_of_the_kl_is_of_the_path_where_the_rate_is_high(
    config: TrainConfig, channels: int, gradient: str
) -> None:
    assert settle(config, images_of(1_000, channels)).kl_gradient == gradient


@pytest.mark.parametrize(
    ("config", "share"),
    [
        (TrainConfig(model=ModelConfig("reference")), 0.25),
        (TrainConfig(), 0.25),
        (TrainConfig(model=ModelConfig("conv")), 0),
        (TrainConfig(num_samples=2, importance_weighted=True), 0),
        (TrainConfig(free_bits=0.1), 0),
        (TrainConfig(init_from="runs/mnist"), 0),
        (TrainConfig(kl_warmup=0.0), 0),
        (TrainConfig(model=ModelConfig("conv"), kl_warmup=0.5), 0.5),
    ],
)
def test_the_kl_weighs_little_at_first_where_latents_would_stay_unused(
    config: TrainConfig, share: float
) -> None:
    assert settle(config, images_of(60_000)).kl_warmup == share


def test_a_short_run_warms_up_within_itself_and_is_told_so() -> None:
    config = settle(TrainConfig(epochs=1, batch_size=32), images_of(850))
    assert config.warmup_steps == 1
    assert config.ema_decay < 0.9
    assert "warning: 26 steps in all" in str(too_few_steps(config, 850))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (TrainConfig(batch_size=101), r"--batch_size 101: the training set has 100 images"),
        (TrainConfig(epochs=1, batch_size=10, warmup_steps=11), "--warmup_steps 11: .* 10 steps"),
    ],
)
def test_what_does_not_fit_the_set_is_refused(config: TrainConfig, said: str) -> None:
    with pytest.raises(UserError, match=said):
        require_warmup_within(settle(config, images_of(100)), 100)


def test_grey_photographs_are_not_taken_for_drawings() -> None:
    generator = np.random.default_rng(0)
    photographs = generator.normal(110, 50, (50, 1, 32, 32)).clip(0, 255).astype(np.uint8)
    drawings = 255 * generator.integers(0, 2, photographs.shape, np.uint8)

    def likelihood_of(pixels: NDArray[np.uint8], config: TrainConfig) -> str:
        images = Images(ImageSet(pixels, None), ImageSet(pixels[:1], None), ())
        settled = settle(config, images)
        assert settle(settled, images) == settled
        return settled.model.likelihood

    conv = TrainConfig(model=ModelConfig("conv"))
    assert likelihood_of(photographs, conv) == "gaussian"
    assert likelihood_of(drawings, conv) == "bernoulli"
    # Half of each is what drawings with soft edges look like.
    assert likelihood_of(np.concatenate([photographs, drawings]), conv) == "bernoulli"
    assert likelihood_of(photographs, TrainConfig(model=ModelConfig("reference"))) == "bernoulli"
    given = TrainConfig(model=ModelConfig("conv", "bernoulli"))
    assert likelihood_of(photographs, given) == "bernoulli"
