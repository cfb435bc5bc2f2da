"""What `auto` comes to, once the images are known."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vaekit.config import Keep, KlGradient, ModelConfig, TrainConfig, settled
from vaekit.errors import UserError
from vaekit.images.image_set import Images
from vaekit.images.mapped import PixelArray
from vaekit.models.settle import settle_model, starts_from_components

# One rule for all sets. A set of MNIST's size gets 20 epochs of batches of 128; a small one wants
# steps, not epochs: smaller batches, and more epochs.
EPOCHS, BATCH_SIZE, WARMUP_STEPS, EMA_DECAY = 20, 128, 200, 0.999
MIN_BATCH_SIZE = 16
MIN_STEPS_PER_EPOCH = 24
ENOUGH_STEPS = 2_000
# Where pixels have a scale, small sets are learnt by heart the sooner: test losses on 1,100 icons
# and as many emojis were best after 950 and 820 of 1,360 and 1,480 steps, 200 and 850 nats better.
ENOUGH_STEPS_WITH_SCALE = 1_000
MAX_EPOCHS = 40  # but for sets so small that these would have less than
MIN_STEPS = 500
# Fewer images teach too little to make up for the principal components: 500 patches of photos are
# decoded with an error of 0.0102 without them, with them 0.0096, by PCA 0.0098.
FEWEST_IMAGES = 1_000
# Who starts from principal components has little left to learn, and of a small set only by heart,
# unless what the network adds to them decays: test losses on 1,100 icons, 2,200 photo patches and
# 200 emojis were best after 2 to 5 of 10 epochs without, after 14 to 20 of 20 with this much. How
# much is said for the whole run at its peak rate, of which a cosine leaves half (Wang and
# Aitchison, 2024: the time in which weights are forgotten is to be a share of the run).
DECAY_OF_FEW = 10.0
EPOCHS_OF_FEW = 20
MIN_STEPS_OF_FEW = 100
# From so many on, half the channels inside the encoder's residual blocks do: MNIST and CIFAR-10 are
# learnt as well in 0.85 of the time; 4,100 letters lost 0.2 nats, and 0.004 of an SVM's accuracy.
FEW_IMAGES = 10_000
# Augmented images are never twice the same, and teach for longer: up to so many times the steps and
# epochs. The error of 1,100 icons was 0.0143 after as many epochs as before, 0.0127 after twice as
# many, which without augmentation came to 0.0140 and lost 3,100 nats more. Not where some of the
# images, or those of some steps, are as they are.
LENGTH_OF_AUGMENTED = 2
# Grey drawings are learnt by heart in a long run only, and take longer to be learnt at all if they
# are augmented: 4,100 letters lost 84.5 nats after 1,280 steps with these shares, 83.7 without, and
# after 2,560 steps 79.8 and 80.8.
LONG_RUN = 2_500  # steps
NORMED_AUGMENT_SHARE, NORMED_AUGMENT_UNTIL = 0.5, 0.75
WARMUP_SHARE = 0.05  # of the run, at most
AVERAGED_SHARE = 0.2  # of the run, at most: the steps over which the average reaches back
RATE = 1e-3
# Group norm bears a higher rate, and few epochs want it: on MNIST, held-out images lost 101.0 nats
# after 4 epochs at 0.001, 99.6 at 0.002. Adam's rate goes with the root of the batch (Malladi and
# others, 2022). Not where pixels have a scale, whose fall makes gradients a hundred times as steep.
NORMED_RATE = 4e-3
# An average over a hundred squared gradients serves that rate better than one over a thousand: on
# MNIST, held-out images lost 96.3 nats after 6 epochs with a beta2 of 0.999, 95.8 with 0.99. Decay
# of the weights changed nothing in so short a run; over 20 epochs it narrows the gap to training.
BETA2, NORMED_BETA2 = 0.999, 0.99
WEIGHT_DECAY, NORMED_WEIGHT_DECAY = 0.0, 0.05
# Of random weights where pixels have a scale, for the whole run, as above.
DECAY_WITH_SCALE = 4.0
# Where the KL weighs in full from the first step on, the reference's architecture leaves latents
# unused, and how many is chance: on MNIST three of ten are dead after two epochs with seed 1, which
# ends 2 nats behind seed 0. None is where the KL's weight rises over a quarter of the run; over a
# tenth one still is (Bowman and others, 2016; Sonderby and others, 2016).
KL_WARMUP = 0.25
# Posteriors are wide, and what is sampled from them is blurred. With noise of so much the variance
# squared errors fell from 0.0037 to 0.0030 on letters and from 0.0031 to 0.0024 on digits, and an
# SVM's accuracy rose from 0.971 to 0.982 and from 0.992 to 0.994, for 0.7 nats of the test loss.
# Of many images it does no more than that: MNIST's accuracy stays what it is.
TEMPERATURE_OF_FEW = 0.6
# Grey photographs are of tones that Bernoulli pixels can't tell apart: latents keep few nats, and
# images are decoded worse than by principal components. Of their values 0.84 were seen to lie
# between these two, of scikit-learn's digits 0.51, of icons in grey 0.41, of letters 0.06.
DARK, LIGHT = 26, 229
MOSTLY = 2 / 3
LOOKED_AT = 1_000  # images
FEW_STEPS = 100  # in which a VAE learns little more than the mean image


def settle(config: TrainConfig, images: Images) -> TrainConfig:
    """`config` with every `auto` decided by one rule for all sets; decided ones stay as they are.

    Raises `UserError` where a setting doesn't fit the images, or another one.
    """
    num_images = len(images.train.pixels)
    config = replace(config, model=_settle_model(config, images))
    config = _with_augmentation(config, num_images)
    config = _with_schedule(config, num_images)
    return replace(
        _with_adam(config, num_images),
        data=images.data or config.data,
        keep=_settle_keep(config, images),
        kl_gradient=_settle_kl_gradient(config),
        kl_warmup=_settle_kl_warmup(config),
        temperature=_settle_temperature(config, num_images),
    )


def _settle_model(config: TrainConfig, images: Images) -> ModelConfig:
    given, pixels = config.model, images.train.pixels
    model = settle_model(given, images.shape, config.data.name)
    is_auto = given.likelihood == "auto" and model.architecture == "conv"
    if is_auto and model.likelihood == "bernoulli" and are_of_tones(pixels):
        given = replace(given, likelihood="gaussian")
    if given.thumbnail == "auto" and len(pixels) < FEWEST_IMAGES:
        given = replace(given, thumbnail=False)
    if given.block_bottleneck == "auto" and len(pixels) < FEW_IMAGES:
        given = replace(given, block_bottleneck=False)
    return settle_model(given, images.shape, config.data.name)


def are_of_tones(pixels: PixelArray) -> bool:
    """Whether images [N, C, H, W] are mostly neither dark nor light, by some of them."""
    chosen = np.linspace(0, len(pixels) - 1, min(len(pixels), LOOKED_AT)).round().astype(np.int64)
    some: NDArray[np.uint8] = pixels[chosen]
    return float(((some > DARK) & (some < LIGHT)).mean()) > MOSTLY


def _settle_keep(config: TrainConfig, images: Images) -> Keep:
    has_validation = images.validation is not None
    if config.keep == "best" and not has_validation:
        raise UserError(
            "--keep best: there is no validation set to choose by; hold one out of the training "
            "images with --data.validation 0.1, or give --keep last"
        )
    if config.keep == "auto":
        return "best" if has_validation else "last"
    return config.keep


def _settle_kl_gradient(config: TrainConfig) -> KlGradient:
    """Of the path where group norm bears a high rate; see `learning_rate_for`."""
    if config.kl_gradient != "auto":
        return config.kl_gradient
    return "path" if _bears_high_rate(config.model) and not _has_own_kl(config) else "exact"


def _settle_temperature(config: TrainConfig, num_images: int) -> float:
    if config.temperature != "auto":
        return config.temperature
    are_few = _bears_high_rate(config.model) and num_images < FEW_IMAGES
    return TEMPERATURE_OF_FEW if are_few and not _has_own_kl(config) else 1.0


def _has_own_kl(config: TrainConfig) -> bool:
    """What a step minimises has another KL than the posteriors', or none."""
    return config.importance_weighted or config.free_bits > 0


def _with_augmentation(config: TrainConfig, num_images: int) -> TrainConfig:
    """Where a set would otherwise be learnt by heart, and where it is asked for by its shares."""
    share, until = config.augment_share, config.augment_until
    augment = config.augment
    if augment == "auto":
        # A share of 1 is recorded where nothing is augmented, too.
        is_asked_for = share not in ("auto", 1) or until not in ("auto", 1)
        augment = is_asked_for or _wants_augmentation(config, num_images)
    is_partial = augment and _bears_high_rate(config.model)
    usual = (NORMED_AUGMENT_SHARE, NORMED_AUGMENT_UNTIL) if is_partial else (1.0, 1.0)
    return replace(
        config,
        augment=augment,
        augment_share=usual[0] if share == "auto" else share,
        augment_until=usual[1] if until == "auto" else until,
    )


def _wants_augmentation(config: TrainConfig, num_images: int) -> bool:
    if _has_scale(config.model):
        return num_images < FEW_IMAGES
    scheduled = _with_schedule(replace(config, augment=False), num_images)
    is_long = _num_steps(scheduled, num_images) >= LONG_RUN
    return is_long and _bears_high_rate(config.model)


def _settle_kl_warmup(config: TrainConfig) -> float:
    """None where latents are in use from the start, by other means, or have no KL to weigh."""
    if config.kl_warmup != "auto":
        return config.kl_warmup
    is_conv = config.model.architecture == "conv"
    are_used = is_conv or config.free_bits > 0 or config.init_from is not None
    return 0.0 if are_used or config.importance_weighted else KL_WARMUP


def _with_schedule(config: TrainConfig, num_images: int) -> TrainConfig:
    batch_size = batch_size_for(num_images) if config.batch_size == "auto" else config.batch_size
    if batch_size > num_images:
        raise UserError(
            f"--batch_size {batch_size}: the training set has {num_images} images; "
            f"give at most that"
        )
    steps_per_epoch = num_images // batch_size
    if config.epochs != "auto":
        epochs = config.epochs
    elif _learns_by_heart(config.model, num_images):
        usual = _length_factor(config) * EPOCHS_OF_FEW
        epochs = max(usual, math.ceil(MIN_STEPS_OF_FEW / steps_per_epoch))
    else:
        epochs = epochs_for(config, steps_per_epoch)
    num_steps = epochs * steps_per_epoch
    few = min(WARMUP_STEPS, int(WARMUP_SHARE * num_steps))
    decay = min(EMA_DECAY, round(max(0.0, 1 - 1 / (AVERAGED_SHARE * num_steps)), 4))
    rate = learning_rate_for(config.model, batch_size)
    return replace(
        config,
        epochs=epochs,
        batch_size=batch_size,
        warmup_steps=few if config.warmup_steps == "auto" else config.warmup_steps,
        ema_decay=decay if config.ema_decay == "auto" else config.ema_decay,
        learning_rate=rate if config.learning_rate == "auto" else config.learning_rate,
    )


def _with_adam(config: TrainConfig, num_images: int) -> TrainConfig:
    """Of a config whose schedule is settled."""
    beta2, decay = BETA2, WEIGHT_DECAY
    num_steps = max(_num_steps(config, num_images), MIN_STEPS_OF_FEW)
    rates = settled(config.learning_rate) * num_steps
    if _bears_high_rate(config.model):
        beta2, decay = NORMED_BETA2, NORMED_WEIGHT_DECAY
    elif _learns_a_scale(config.model):
        beta2, decay = NORMED_BETA2, round(DECAY_WITH_SCALE / rates, 2)
    elif _learns_by_heart(config.model, num_images):
        decay = round(DECAY_OF_FEW / rates, 2)
    return replace(
        config,
        adam_beta2=beta2 if config.adam_beta2 == "auto" else config.adam_beta2,
        weight_decay=decay if config.weight_decay == "auto" else config.weight_decay,
    )


def require_warmup_within(config: TrainConfig, num_images: int) -> None:
    """Raise `UserError` where the rate of a settled config would never reach its peak."""
    num_steps = _num_steps(config, num_images)
    if settled(config.warmup_steps) > num_steps:
        raise UserError(
            f"--warmup_steps {config.warmup_steps}: the run has {num_steps} steps "
            f"({config.epochs} epochs of {num_images // settled(config.batch_size)}); give less "
            f"than that, or leave the flag out"
        )


def epochs_for(config: TrainConfig, steps_per_epoch: int) -> int:
    """What gives `enough_steps`, from `EPOCHS` to `MAX_EPOCHS`, and `MIN_STEPS` in any case.

    The most is more where every image is augmented in every step.
    """
    steps = enough_steps(config), MIN_STEPS
    enough, least = (math.ceil(each / steps_per_epoch) for each in steps)
    return max(EPOCHS, min(enough, _length_factor(config) * MAX_EPOCHS), least)


def enough_steps(config: TrainConfig) -> int:
    """After which a small set has taught what it can."""
    enough = ENOUGH_STEPS_WITH_SCALE if _learns_a_scale(config.model) else ENOUGH_STEPS
    return _length_factor(config) * enough


def _num_steps(config: TrainConfig, num_images: int) -> int:
    """Of a run whose schedule is settled."""
    return settled(config.epochs) * (num_images // settled(config.batch_size))


def _length_factor(config: TrainConfig) -> int:
    if not settled(config.augment):
        return 1
    shares = settled(config.augment_share), settled(config.augment_until)
    return LENGTH_OF_AUGMENTED if shares == (1, 1) else 1


def learning_rate_for(model: ModelConfig, batch_size: int) -> float:
    """The peak, higher where group norm bears it."""
    if not _bears_high_rate(model):
        return RATE
    return round(NORMED_RATE * math.sqrt(min(1, batch_size / BATCH_SIZE)), 4)


def _bears_high_rate(model: ModelConfig) -> bool:
    return model.architecture == "conv" and model.likelihood == "bernoulli"


def _has_scale(model: ModelConfig) -> bool:
    return model.architecture == "conv" and model.likelihood != "bernoulli"


def _learns_a_scale(model: ModelConfig) -> bool:
    """From random weights, with group norm."""
    return _has_scale(model) and not starts_from_components(model)


def batch_size_for(num_images: int) -> int:
    """The power of two, up to 128, that leaves an epoch `MIN_STEPS_PER_EPOCH`."""
    largest = max(MIN_BATCH_SIZE, num_images // MIN_STEPS_PER_EPOCH)
    return min(BATCH_SIZE, 1 << (largest.bit_length() - 1), num_images)


def too_few_steps(config: TrainConfig, num_images: int) -> str | None:
    """What to tell whose run is too short to teach anything; None where it is not."""
    num_steps = _num_steps(config, num_images)
    if num_steps >= FEW_STEPS or starts_from_components(config.model):
        return None
    return (
        f"warning: {num_steps} steps in all ({config.epochs} epochs of {num_images} images in "
        f"batches of {config.batch_size}) teach little more than the mean image; give more "
        f"--epochs or a smaller --batch_size"
    )


def _learns_by_heart(model: ModelConfig, num_images: int) -> bool:
    return starts_from_components(model) and num_images < FEW_IMAGES
