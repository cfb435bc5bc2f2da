"""Memory: estimated before anything is built, and refused where there is not as much."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import TINY_FLAGS, tiny_config

from vaekit.cli import main
from vaekit.config import DataConfig, Keep, ModelConfig, TrainConfig
from vaekit.errors import UserError
from vaekit.models.settle import settle_model
from vaekit.models.vae import VAE, num_parameters
from vaekit.runs.run import Run
from vaekit.train import train
from vaekit.training import memory
from vaekit.training.memory import estimate, require_memory

CPU = torch.device("cpu")


def of_reference(image_size: int = 28, batch_size: int = 128, **model: Any) -> TrainConfig:
    settings = ModelConfig(architecture="reference", **model)
    return TrainConfig(
        data=DataConfig(name="folder", image_size=image_size),
        model=settle_model(settings, (1, image_size, image_size)),
        batch_size=batch_size,
    )


def test_parameters_and_checkpoint_are_those_of_the_model() -> None:
    found = estimate(of_reference(), (1, 28, 28), num_processes=1)
    assert found.num_parameters == num_parameters(VAE()) == 19_173_749
    assert found.checkpoint == 4 * 4 * 19_173_749
    assert found.weights == 5 * 4 * 19_173_749


def test_the_best_weights_are_one_copy_more_and_images_on_a_gpu_count() -> None:
    last = estimate(of_reference(), (1, 28, 28), num_processes=1)
    best = replace(of_reference(), keep="best")
    found = estimate(best, (1, 28, 28), num_processes=1, resident=47_040_000)
    copy = 4 * 19_173_749
    assert found.checkpoint == last.checkpoint + copy
    assert found.weights == last.weights + copy
    assert found.peak == last.peak + int(1.15 * found.weights) - int(1.15 * last.weights) + (
        47_040_000
    )


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_checkpoint_is_as_large_as_was_said(keep: Keep, tmp_path: Path) -> None:
    config = replace(tiny_config(tmp_path / "run"), keep=keep)
    config = replace(config, data=replace(config.data, validation=16))
    train(config)
    found = estimate(Run(tmp_path / "run").config, (1, 28, 28), num_processes=1)
    *_, newest = sorted((tmp_path / "run" / "checkpoints").iterdir())
    # The losses, and a header with the names of the tensors.
    assert 0 <= newest.stat().st_size - found.checkpoint < 20_000


def test_activations_grow_with_the_batch_of_a_process() -> None:
    def of(batch_size: int, num_processes: int) -> int:
        config = of_reference(batch_size=batch_size)
        return estimate(config, (1, 28, 28), num_processes).activations

    layers = 16 * 26**2 + 32 * 24**2 + 512 + 256 + 2 * 10  # the encoder's
    layers += 256 + 512 + 32 * 24**2 + 16 * 26**2 + 28**2
    assert of(4096, 1) == 4096 * 2 * 4 * layers
    assert of(8192, 2) == of(4096, 1)


def test_each_sample_of_the_latents_is_decoded() -> None:
    config = of_reference(batch_size=4096)
    decoder = 256 + 512 + 32 * 24**2 + 16 * 26**2 + 28**2
    one, three = (
        estimate(replace(config, num_samples=number), (1, 28, 28), 1).activations
        for number in (1, 3)
    )
    assert three - one == 2 * 4096 * 2 * 4 * decoder


def test_what_cannot_fit_is_refused_with_the_flags_that_make_it_smaller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = of_reference(image_size=128, batch_size=32)
    large = estimate(config, (1, 128, 128), num_processes=1)
    monkeypatch.setattr(memory, "available", lambda _: 4_000_000_000)
    with pytest.raises(UserError) as error:
        require_memory(large, CPU, config)
    line = str(error.value)
    for words in (
        "--data.image_size 128: 504,613,749 parameters, 8.1 GB a checkpoint, about 1",
        "this machine has 4.0 GB free",
        "give a smaller --data.image_size, --model.hidden_dims or --model.conv_channels",
    ):
        assert words in line
    small = of_reference(batch_size=60_000, hidden_dims=(1,))
    with pytest.raises(UserError, match=r"give a smaller --batch_size, --data\.image_size"):
        require_memory(estimate(small, (1, 28, 28), num_processes=1), CPU, small)


def test_a_refused_run_leaves_no_folder_and_decodes_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "available", lambda _: 1_000)
    (tmp_path / "images").mkdir()
    flags = ["--data.name", "folder", "--data.root", str(tmp_path / "images")]
    with pytest.raises(SystemExit, match="2"):
        main(["train", *TINY_FLAGS, *flags, "--run", str(tmp_path / "run")])
    assert "this machine has 0 MB free" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("limit", "usage", "cached", "left"),
    [("1000", "700", 200, [500]), ("max", "700", 200, []), ("1000", "x", 0, [])],
)
def test_the_limit_of_a_container_counts_without_its_page_cache(
    limit: str, usage: str, cached: int, left: list[int], tmp_path: Path
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{usage}\n")
    (tmp_path / "memory.stat").write_text(f"anon 500\ninactive_file {cached}\nactive_file 0\n")
    assert memory._within_limits(tmp_path) == left


def test_a_machine_without_limits_has_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_within_limits", list)
    assert 0 < memory.available(CPU) <= psutil.virtual_memory().total
