"""Which steps are recorded, by rule, and what a recorded one that fails leaves behind.

That it gives what an eager one gives is in test_exactness.
"""

from collections import deque
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import torch
from conftest import tiny_config

from vaekit.config import ArchitectureName, MixedPrecision, ModelConfig
from vaekit.errors import UserError
from vaekit.images.image_set import Images, ImageSet
from vaekit.models.vae import ARCHITECTURES
from vaekit.training import graph, update_in_one
from vaekit.training import step as step_module
from vaekit.training.graph import ExecutionPath, choose_execution_path, require_compilable
from vaekit.training.loop import train_epoch
from vaekit.training.ranks import start_accelerator
from vaekit.training.state import Training

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NUM_STEPS = 8
DRIFT = {"reference": 1e-4, "conv": 0.1}  # Adam makes much of the rounding of biases before a norm


pytestmark = pytest.mark.usefixtures("any_precision")


@pytest.mark.parametrize(
    ("device", "num_processes", "mixed_precision", "path"),
    [
        (CPU, 1, "no", "eager"),
        (CPU, 2, "no", "eager"),
        (CUDA, 1, "no", "cuda graph"),
        (CUDA, 1, "bf16", "cuda graph"),
        (CUDA, 1, "fp16", "eager"),
        (CUDA, 2, "bf16", "eager"),
    ],
)
def test_a_graph_is_for_one_process_on_cuda_without_a_loss_scale(
    device: torch.device, num_processes: int, mixed_precision: str, path: str
) -> None:
    assert choose_execution_path(device, num_processes, mixed_precision) == path


class Launch(NamedTuple):
    """What a step asks of an Accelerator."""

    device: torch.device
    num_processes: int
    mixed_precision: str


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        (Launch(CPU, 1, "no"), "has 1 process.* on cpu, mixed precision no; leave it out"),
        (Launch(CUDA, 2, "bf16"), "has 2 process.* on cuda"),
        (Launch(CUDA, 1, "fp16"), "mixed precision fp16; leave it out"),
    ],
)
def test_a_step_that_is_not_recorded_is_not_compiled(launch: Any, words: str) -> None:
    with pytest.raises(UserError, match=f"^--compile: .*{words}"):
        require_compilable(launch)


def test_a_compiler_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "find_spec", lambda _: object())
    monkeypatch.setattr(graph.shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(UserError, match=r"^--compile: needs Triton.* and a C compiler"):
        require_compilable(Launch(CUDA, 1, "bf16"))  # type: ignore[arg-type]
    monkeypatch.setattr(graph.shutil, "which", lambda name: name == "clang")
    require_compilable(Launch(CUDA, 1, "bf16"))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"input_noise": 0.1, "beta": 2.0, "kl_warmup": 0.5, "free_bits": 0.1},
        {"num_samples": 2, "importance_weighted": True},
        {"model": ModelConfig(architecture="conv", width=4)},
        {"temperature": 0.5},
        {"model": ModelConfig(architecture="conv", width=4, likelihood="logistic")},
        {"mixed_precision": "bf16"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_the_passes_and_the_update_can_each_be_compiled_as_a_whole_and_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """But for the code that is made of them: that takes a compiler, and minutes."""
    compile_ = partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(graph.torch, "compile", compile_)
    monkeypatch.setattr(update_in_one, "LARGE", 200)
    plain, compiled = (
        a_training(tmp_path, path, monkeypatch, compile=path == "cuda graph", **changes)
        for path in get_args(ExecutionPath)
    )
    for training in (plain, compiled):
        deque(train_epoch(training, 1), maxlen=0)
    assert compiled.read_losses().loss == pytest.approx(plain.read_losses().loss, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_to_be_recorded_is_an_eager_one_from_the_start_and_from_a_checkpoint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: MixedPrecision,
    architecture: ArchitectureName,
) -> None:
    model = ModelConfig("conv", width=4) if architecture == "conv" else tiny_config(tmp_path).model
    changes = {"mixed_precision": precision, "model": model}
    eager, recorded, resumed = (
        a_training(tmp_path, path, monkeypatch, **changes)
        for path in ("eager", "cuda graph", "cuda graph")
    )
    assert drift_within(eager, recorded, epoch=1) < DRIFT[architecture]
    resumed.restore(eager.checkpoint())
    assert drift_within(eager, resumed, epoch=2) < DRIFT[architecture]


def drift_within(eager: Training, recorded: Training, epoch: int) -> float:
    """How far the two part, as a share of the way that the weights go."""
    before = parameters(eager)
    for training in (eager, recorded):
        deque(train_epoch(training, epoch), maxlen=0)
    way = parameters(eager) - before
    return float((parameters(recorded) - parameters(eager)).norm() / way.norm())


def parameters(training: Training) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for each in training.vae.parameters()])


def a_training(
    run: Path, path: ExecutionPath, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> Training:
    """On a CPU what would be recorded is rehearsed, and then done at each step."""
    monkeypatch.setattr(step_module, "choose_execution_path", lambda *_: path)
    if not torch.cuda.is_available():
        monkeypatch.setattr(step_module, "record", lambda work, rehearse: (rehearse(), work)[1])
    settings = {"input_noise": 0.1, "mixed_precision": "no"} | changes
    config = tiny_config(run, **settings)
    pixels = np.random.default_rng(0).integers(0, 256, (NUM_STEPS * 16, 1, 12, 12), np.uint8)
    images = Images(ImageSet(pixels, None), ImageSet(pixels[:1], None), ())
    return Training(config, images, start_accelerator(config))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_of_a_graph_that_is_not_finite_stops_all_updates_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = a_training(tmp_path / "run", "cuda graph", monkeypatch)
    training.epoch = 1
    order = np.arange(NUM_STEPS * 16)
    training.stepper.start_epoch(order, 0, training.losses)
    for _ in range(2):
        training.stepper.advance(training.step)
        training.step += 1
    with torch.no_grad():
        training.vae.get_parameter("dec.linear.weight").view(-1)[0] = torch.nan
    before = {name: tensor.clone() for name, tensor in training.tensors().items()}
    del before["ema.dec.linear.weight"]  # nothing of NaN is NaN
    for _ in range(2):
        training.stepper.advance(training.step)
        training.step += 1
    after = training.tensors()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=0, rtol=0, equal_nan=True)
    with pytest.raises(UserError, match="not finite at step 3"):
        training.read_losses()
