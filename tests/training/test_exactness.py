"""What is promised bit for bit of a run, on each device: twice, stopped and resumed, fetched.

On a GPU at the size that people train, in every precision; and the recorded step against an eager
one, which may round in another way.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import tiny_config
from torch import Tensor

from vaekit.config import MixedPrecision, ModelConfig, TrainConfig
from vaekit.images.image_set import Images, ImageSet
from vaekit.models.vae import ARCHITECTURES, VAE
from vaekit.training import loop
from vaekit.training import step as step_module
from vaekit.training.interruption import Interrupted
from vaekit.training.ranks import start_accelerator
from vaekit.training.state import Training

NUM_EPOCHS = 2
STEPS_PER_EPOCH = {"cpu": 4, "cuda": 24}  # together fewer than after which rounding drifts apart
LAST_STEP = {"cpu": 6, "cuda": 37}  # before the stop, within the second epoch
ON_A_GPU = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

# How far two ways of rounding lie apart at most, as a share of the way that the weights have gone.
# bf16 rounds by up to 2^-9, and Adam divides by the gradients' size.
DRIFT = {"no": 1e-2, "bf16": 2**-5}


class Case(NamedTuple):
    device: str
    precision: MixedPrecision
    architecture: str
    is_compiled: bool = False

    def __str__(self) -> str:
        return "-".join([*self[:3], *(["compiled"] if self.is_compiled else [])])


ON_CPU = [Case("cpu", "no", each) for each in ARCHITECTURES]
PRECISIONS: tuple[MixedPrecision, ...] = ("no", "bf16", "fp16")
ON_A_GPU_TOO = [
    *(Case("cuda", precision, each) for precision in PRECISIONS for each in ARCHITECTURES),
    *(Case("cuda", "bf16", each, is_compiled=True) for each in ARCHITECTURES),
]
ON_CUDA = [pytest.param(each, marks=ON_A_GPU, id=str(each)) for each in ON_A_GPU_TOO]
RECORDED = [each for each in ON_CUDA if "fp16" not in str(each.id)]


@pytest.fixture(autouse=True)
def as_a_command_sets_its_process(any_precision: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def config_of(case: Case) -> TrainConfig:
    augmentation = {"augment": True, "augment_share": 0.3, "augment_until": 0.85}
    tiny = tiny_config(
        Path("unused"), input_noise=0.1, mixed_precision=case.precision, **augmentation
    )
    is_tiny = case.device == "cpu"
    model = tiny.model if is_tiny else VAE().config
    if case.architecture != "reference":
        model = ModelConfig(architecture=case.architecture, **({"width": 4} if is_tiny else {}))
    batch_size = tiny.batch_size if is_tiny else 128
    return replace(
        tiny, model=model, batch_size=batch_size, epochs=NUM_EPOCHS, compile=case.is_compiled
    )


def start(case: Case, config: TrainConfig | None = None) -> Training:
    config = config or config_of(case)
    num_images = STEPS_PER_EPOCH[case.device] * config.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (num_images, 1, 28, 28), np.uint8)
    images = Images(ImageSet(pixels, None), ImageSet(pixels[:64], None), ())
    return Training(config, images, start_accelerator(config))


def finish(training: Training) -> dict[str, Tensor]:
    deque(loop.run(training), maxlen=0)
    return training.tensors()


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


@pytest.mark.slow
@pytest.mark.parametrize("case", [*ON_CPU, *ON_CUDA], ids=str)
def test_a_run_is_the_same_twice_resumed_within_an_epoch_and_with_images_fetched(
    case: Case,
) -> None:
    whole = finish(start(case))
    assert_equal(finish(start(case)), whole)
    assert_equal(stopped_and_resumed(case), whole)
    config = config_of(case)
    fetched = replace(config, data=replace(config.data, resident_limit=0))
    assert_equal(finish(start(case, fetched)), whole)


def stopped_and_resumed(case: Case) -> dict[str, Tensor]:
    stopped, last_step = start(case), LAST_STEP[case.device]
    with pytest.raises(Interrupted):
        deque(loop.run(stopped, lambda: 143 if stopped.step == last_step else 0), maxlen=0)
    checkpoint = stopped.checkpoint()
    assert checkpoint.step == last_step
    on_disk = {name: each.cpu().contiguous().clone() for name, each in checkpoint.tensors.items()}
    resumed = start(case)
    resumed.restore(checkpoint._replace(tensors=on_disk))
    return finish(resumed)


@pytest.mark.slow
@pytest.mark.parametrize("case", RECORDED)
def test_a_recorded_step_gives_the_weights_and_losses_of_eager_steps(
    case: Case, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    recorded = start(case)
    initial = parameters(recorded)
    assert recorded.stepper.path == "cuda graph"
    finish(recorded)
    monkeypatch.setattr(step_module, "choose_execution_path", lambda *_: "eager")
    eager = start(case._replace(is_compiled=False))
    finish(eager)
    way = (parameters(eager) - initial).norm()
    drift = float((parameters(recorded) - parameters(eager)).norm() / way)
    record_property("drift", drift)
    if not case.is_compiled:  # which rounds to bf16 in fewer places: the losses agree, no weight
        assert drift < DRIFT[case.precision]
    for row, other in zip(recorded.metrics, eager.metrics, strict=True):
        assert row["test_loss"] == pytest.approx(other["test_loss"], rel=1e-3)


def parameters(training: Training) -> Tensor:
    return torch.cat([each.detach().double().cpu().flatten() for each in training.vae.parameters()])
