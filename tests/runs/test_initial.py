"""A run starts from the weights of another one, and needs that no more once it has begun."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY_FLAGS, tiny_config
from damage_helpers import Refused, data_flipped, snapshot
from kill_helpers import assert_same_result

from vaekit.cli import main
from vaekit.config import DataConfig
from vaekit.runs.checkpoints import load_checkpoint
from vaekit.runs.run import Run
from vaekit.storage.files import file_sha256
from vaekit.train import train


@pytest.mark.slow
def test_a_run_starts_from_the_weights_of_another_one_on_other_images_and_goes_on_without_it(
    run: Path, tmp_path: Path
) -> None:
    data = DataConfig(name="digits", limit=48, holdout=70)
    config = tiny_config(tmp_path / "new", data=data, init_from=str(run), checkpoint_every=9)
    train(config)
    assert Run(tmp_path / "new").config.init_sha256 == file_sha256(run / "model.safetensors")
    checkpoints = tmp_path / "new" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "step-00000000.safetensors",
        "step-00000006.safetensors",
    ]
    first = load_checkpoint(checkpoints / "step-00000000.safetensors")
    for name, tensor in Run(run).weights.vae.state_dict().items():
        for part in ("model", "ema"):
            assert torch.equal(first.tensors[f"{part}.{name}"], tensor), name

    shutil.rmtree(run)
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "new", again)
    (again / "checkpoints" / "step-00000006.safetensors").unlink()
    main(["train", "--config", str(again / "config.yaml"), "--run", str(again)])
    assert_same_result(again, tmp_path / "new")


@pytest.mark.slow
def test_weights_that_are_not_to_be_started_from_are_refused_and_nothing_is_made(
    run: Path, tmp_path: Path, refused: Refused
) -> None:
    new = tmp_path / "new"

    def line_for(start: object, *flags: str) -> str:
        line = refused("train", *TINY_FLAGS, "--init_from", start, *flags, "--run", new)
        assert line.startswith(f"vaekit: error: --init_from {start}: ")
        assert not new.exists()
        return line

    assert "not a run folder" in line_for(tmp_path / "nowhere")
    line = line_for(run, "--model.latent_dim", "4", "--model.hidden_dims", "[9]")
    assert "of another model; give --model.latent_dim 3, --model.hidden_dims [16,8]" in line
    assert "of images of 1x28x28" in line_for(run, "--data.image_size", "32")
    assert "its weights have sha256" in line_for(run, "--init_sha256", "0" * 64)
    data_flipped(run / "model.safetensors")
    assert "damaged, its content does not match its sha256" in line_for(run)
    assert "give --init_from" in refused("train", *TINY_FLAGS, "--init_sha256", "0" * 64)


def test_a_run_does_not_start_from_itself(run: Path, refused: Refused) -> None:
    shutil.rmtree(run / "checkpoints")
    before = snapshot(run)
    flags = ("--init_from", run.parent / "." / run.name, "--run", run)
    assert "the run itself" in refused("train", *TINY_FLAGS, *flags)
    assert snapshot(run) == before
