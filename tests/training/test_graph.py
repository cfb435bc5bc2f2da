"""Which steps are recorded, by rule, and what a recorded one that fails leaves behind.

That it gives what an eager one gives is in test_exactness.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config

from vaekit.errors import UserError
from vaekit.images.image_set import Images, ImageSet
from vaekit.training import step as step_module
from vaekit.training.graph import ExecutionPath, choose_execution_path
from vaekit.training.ranks import start_accelerator
from vaekit.training.state import Training

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NUM_STEPS = 8

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


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


def a_training(run: Path, path: ExecutionPath, monkeypatch: pytest.MonkeyPatch) -> Training:
    monkeypatch.setattr(step_module, "choose_execution_path", lambda *_: path)
    config = tiny_config(run, input_noise=0.1, mixed_precision="no")
    pixels = np.random.default_rng(0).integers(0, 256, (NUM_STEPS * 16, 1, 12, 12), np.uint8)
    images = Images(ImageSet(pixels, None), ImageSet(pixels[:1], None), ())
    return Training(config, images, start_accelerator(config))


@pytest.mark.cuda
@on_a_gpu
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
