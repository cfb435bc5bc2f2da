"""An update of the weights: its schedules, and what a step that fails leaves behind."""

import math
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_config

from vaekit.config import ModelConfig, TrainConfig
from vaekit.errors import UserError
from vaekit.images.image_set import Images
from vaekit.images.pixels import as_floats
from vaekit.images.sets import load_images
from vaekit.models.vae import VAE
from vaekit.training import step
from vaekit.training.loop import train_epoch
from vaekit.training.ranks import start_accelerator
from vaekit.training.state import Training
from vaekit.training.step import ema_decay, kl_weight, learning_rate
from vaekit.training.update import decay_groups


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """A tiny run after its first epoch of six steps."""
    config = tiny_config(tmp_path / "run", input_noise=0.1)
    images = load_images(config.data, config.seed)
    pixels = images.train.pixels.copy()
    images = Images(images.train._replace(pixels=pixels), images.test, images.class_names)
    training = Training(config, images, start_accelerator(config))
    deque(train_epoch(training, 1), maxlen=0)
    return training


def state(training: Training) -> dict[str, torch.Tensor]:
    """Weights, average and moments."""
    tensors = training.tensors().items()
    return {name: tensor.clone() for name, tensor in tensors if name != "losses"}


def start_next_epoch(training: Training) -> None:
    order = np.arange(len(training.images.train.pixels))
    training.epoch = 2
    training.stepper.start_epoch(order, 0, training.losses[:0])


def advance(training: Training) -> None:
    training.stepper.advance(training.step)
    training.step += 1


def assert_stopped(training: Training, before: dict[str, torch.Tensor], *, step: int) -> None:
    """Nothing was updated since `before`, and the step that failed is named."""
    for name, tensor in state(training).items():
        assert torch.equal(tensor, before[name]), name
    with pytest.raises(UserError, match=rf"not finite at step {step} \(epoch 2\)"):
        training.read_losses()


def test_a_step_moves_every_weight_moment_and_average(training: Training) -> None:
    before = state(training)
    start_next_epoch(training)
    advance(training)
    after = state(training)
    assert len(before) > 40
    for name, tensor in before.items():
        assert not torch.equal(tensor, after[name]), name


def test_a_rehearsal_leaves_everything_as_it_is(training: Training) -> None:
    before = state(training)
    training.stepper.rehearse()
    for name, tensor in state(training).items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("parameter", ["enc.linear.weight", "dec.deconv2.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.injects(10)
def test_a_gradient_that_is_not_finite_stops_all_updates_and_its_step_is_named(
    training: Training, parameter: str, value: float
) -> None:
    start_next_epoch(training)
    advance(training)
    before = state(training)

    def spoil_one_entry(gradient: torch.Tensor) -> torch.Tensor:
        spoilt = gradient.clone()
        spoilt.view(-1)[-1] = value
        return spoilt

    hook = training.vae.get_parameter(parameter).register_hook(spoil_one_entry)
    advance(training)
    hook.remove()
    advance(training)
    assert_stopped(training, before, step=8)


@pytest.mark.injects(10)
def test_a_pixel_that_is_no_number_stops_all_updates_and_its_step_is_named(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_next_epoch(training)
    before = state(training)

    def spoil_one_pixel(pixels: torch.Tensor) -> torch.Tensor:
        images = as_floats(pixels)
        images[0, 0, 3, 3] = torch.nan
        return images

    with monkeypatch.context() as patch:
        patch.setattr(step, "as_floats", spoil_one_pixel)
        advance(training)
    advance(training)
    assert_stopped(training, before, step=7)


@pytest.mark.injects(10)
def test_a_weight_that_is_not_finite_is_found_at_its_first_step(training: Training) -> None:
    with torch.no_grad():
        training.vae.get_parameter("dec.linear.weight").view(-1)[0] = torch.nan
    start_next_epoch(training)
    advance(training)
    advance(training)
    with pytest.raises(UserError, match="not finite at step 7"):
        training.read_losses()


def test_the_rate_warms_up_and_then_follows_torchs_cosine() -> None:
    config = TrainConfig(learning_rate=0.1, warmup_steps=4)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for number in range(20):
        expected = min(1.0, (number + 1) / 4) * schedule.get_last_lr()[0]
        assert learning_rate(config, number, 20) == pytest.approx(expected)
        optimizer.step()
        schedule.step()
    assert learning_rate(config, 20, 20) == pytest.approx(0)


def test_the_average_soon_forgets_the_initial_weights() -> None:
    config = TrainConfig(ema_decay=0.999)
    share_of_initial = np.prod([ema_decay(config, step) for step in range(220)])
    assert share_of_initial < 1e-6
    assert ema_decay(config, 100_000) == 0.999
    assert ema_decay(TrainConfig(ema_decay=0), 5) == 0


def test_the_kl_weighs_ever_more_until_its_warm_up_is_over() -> None:
    config = TrainConfig(beta=4.0, kl_warmup=0.5, temperature=1.0)
    assert [kl_weight(config, step, 8) for step in range(6)] == [0, 1, 2, 3, 4, 4]
    assert kl_weight(TrainConfig(beta=4.0, kl_warmup=0, temperature=0.5), 0, 8) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"beta": 4.0},
        {"kl_warmup": 1.0},
        {"free_bits": 0.5},
        {"num_samples": 2},
        {"kl_gradient": "path"},
        {"temperature": 0.5},
        {"num_samples": 2, "importance_weighted": True},
    ],
    ids=lambda changes: str([*changes]),
)
def test_whatever_is_minimised_moves_the_weights_and_the_bound_is_reported(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    plain, other = (tiny_config(tmp_path, **settings) for settings in ({}, changes))
    images = load_images(plain.data, plain.seed)
    ends = []
    for config in (plain, other):
        training = Training(config, images, start_accelerator(config))
        training.stepper.start_epoch(np.arange(96), 0, training.losses[:0])
        training.epoch = 1
        advance(training)
        advance(training)
        ends.append((training.read_losses(), state(training)))
    (bound, weights), (found, moved) = ends
    assert abs(found.loss - bound.loss) < 0.02 * bound.loss  # that of the first steps, at beta 1
    assert any(not torch.equal(weights[name], moved[name]) for name in weights)


@pytest.mark.parametrize("kl_gradient", ["exact", "path"])
def test_at_a_temperature_a_step_sees_posteriors_of_so_much_the_variance(
    tmp_path: Path, kl_gradient: str
) -> None:
    """So a net learns the same as one whose log-variances are less by so much, at such a beta."""
    model = ModelConfig("conv", width=2, latent_dim=3)
    changes = {"model": model, "kl_gradient": kl_gradient, "weight_decay": 0.0}
    tempered = tiny_config(tmp_path, temperature=0.4, **changes)
    narrow = tiny_config(tmp_path, temperature=1.0, beta=0.4, **changes)
    images = load_images(tempered.data, tempered.seed)
    ends = []
    for config in (tempered, narrow):
        training = Training(config, images, start_accelerator(config))
        if config is narrow:
            training.vae.enc.get_parameter("var.bias").data += math.log(0.4)
        training.epoch = 1
        training.stepper.start_epoch(np.arange(96), 0, training.losses[:0])
        for _ in range(3):
            advance(training)
        with torch.no_grad():
            posterior = training.vae.encode(as_floats(torch.from_numpy(images.test.pixels[:])))
            decoded = training.vae.decode(torch.linspace(-2, 2, 12).reshape(4, 3))
        ends.append((training.read_losses(), *posterior, decoded))
    (found, mean, log_variance, decoded), (expected, narrow_mean, narrow_one, others) = ends
    assert found == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(mean, narrow_mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_variance + math.log(0.4), narrow_one, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decoded, others, rtol=1e-4, atol=1e-4)


def test_weights_decay_but_neither_biases_nor_a_linear_way_and_moments_keep_their_places() -> None:
    vae = VAE(ModelConfig("conv", "gaussian", 3, width=2), (3, 8, 8))
    name_of = {id(parameter): name for name, parameter in vae.named_parameters()}
    groups = decay_groups(vae, 0.5)
    decays = {
        name_of[id(each)]: group.weight_decay for group in groups for each in group.parameters
    }
    assert len(decays) == len(name_of)
    for name, parameter in vae.named_parameters():
        is_spared = parameter.ndim == 1 or ".components." in name
        assert decays[name] == (0.0 if is_spared else 0.5), name
    assert len(decay_groups(vae, 0.0)) == 2
    assert list(decays) == sorted(name_of.values(), key=lambda it: vae.get_parameter(it).ndim == 1)
