"""Training throughput: the step that `vaekit train` runs, on the reference model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from vaekit.batches import epoch_order
from vaekit.config import TrainConfig
from vaekit.images import Images, ImageSet
from vaekit.processes import start_accelerator
from vaekit.run_folder import RunFolder
from vaekit.step import Training, run_step
from vaekit.train import set_up

NUM_BATCHES = 4


@pytest.mark.parametrize("batch_size", [64, 128])
def test_training_images_per_second(
    benchmark: BenchmarkFixture,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    batch_size: int,
) -> None:
    """One round is one step: gather, forward, loss, backward, Adam, average."""
    training = _training(tmp_path, batch_size)
    order = epoch_order(0, 1, len(training.train_pixels)).to(training.accelerator.device)

    def step() -> None:
        run_step(training, order, training.step % NUM_BATCHES)
        training.step += 1
        if training.accelerator.device.type == "cuda":
            torch.cuda.synchronize()

    benchmark.group = f"training step, batch {batch_size}"
    benchmark.pedantic(step, rounds=10, warmup_rounds=2)
    if benchmark.stats is not None:
        rate = batch_size / benchmark.stats.stats.min
        benchmark.extra_info["images_per_second"] = rate
        with capsys.disabled():
            device, threads = training.accelerator.device.type, torch.get_num_threads()
            print(f"\n{benchmark.group}: {rate:,.0f} images a second on {device}, ", end="")
            print(f"{threads} thread(s), best of 10")


def _training(run: Path, batch_size: int) -> Training:
    config = TrainConfig(run=str(run), batch_size=batch_size)
    shape = (NUM_BATCHES * batch_size, 1, 28, 28)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = Images(ImageSet(pixels, None), ImageSet(pixels[:1], None), ())
    return set_up(config, start_accelerator(config), RunFolder(run), images)
