"""A run folder belongs to one config, and its weights come back."""

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from safetensors import safe_open

from vaekit.models.vae import VAE
from vaekit.runs.folder import RunFolder
from vaekit.runs.run import Run
from vaekit.runs.weights import write_weights
from vaekit.storage.files import file_sha256


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    with run.lock():
        run.start(tiny_config(run.path))
    return run


def test_the_same_config_may_start_again_and_what_is_off_the_trajectory_may_change(
    run: RunFolder,
) -> None:
    before = run.config.read_bytes()
    run.start(dataclasses.replace(tiny_config(run.path), checkpoint_every=7))
    assert run.config.read_bytes() == before  # until that start has read the checkpoint


def test_weights_come_back_with_their_model_and_class_names(run: RunFolder) -> None:
    vae = VAE(tiny_config(run.path).model, (2, 9, 11))
    write_weights(run, vae, ("cat", "dög"), "abc")
    weights = Run(run.path).weights
    assert str(weights.vae) == str(vae)
    assert weights.vae.image_shape == (2, 9, 11)
    assert weights.class_names == ("cat", "dög")
    assert Run(run.path).sha256("weights") == file_sha256(run.model)
    for name, tensor in weights.vae.state_dict().items():
        assert torch.equal(tensor, vae.state_dict()[name])
    with safe_open(run.model, framework="pt") as file:
        assert set(file.keys()) == set(vae.state_dict())
