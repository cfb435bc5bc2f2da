"""A run folder belongs to one config and one writer, and its weights load strictly."""

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from safetensors import safe_open

from vaekit.config import TrainConfig
from vaekit.errors import UserError
from vaekit.models.vae import VAE
from vaekit.runs.environment import append_environment
from vaekit.runs.folder import RunFolder
from vaekit.runs.metrics import write_metrics
from vaekit.runs.run import Run
from vaekit.runs.weights import write_weights
from vaekit.settings import read_config
from vaekit.storage.files import file_sha256
from vaekit.storage.tensors import read_tensors, write_tensors

KIND = {"format_name": "vaekit-weights", "version": 1}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    with run.lock():
        run.start(tiny_config(run.path))
    return run


def tiny_vae(run: RunFolder) -> VAE:
    return VAE(tiny_config(run.path).model, (2, 9, 11))


def test_a_started_run_holds_its_config(run: RunFolder) -> None:
    assert read_config(TrainConfig, run.config) == tiny_config(run.path)
    assert run.require_config() == tiny_config(run.path)


def test_the_same_config_may_start_again_and_what_is_off_the_trajectory_may_change(
    run: RunFolder,
) -> None:
    before = run.config.read_bytes()
    run.start(dataclasses.replace(tiny_config(run.path), checkpoint_every=7))
    assert run.config.read_bytes() == before  # until that start has read the checkpoint


@pytest.mark.injects(7)
def test_a_second_writer_is_refused_while_the_first_one_writes(run: RunFolder) -> None:
    with (
        run.lock(),
        pytest.raises(UserError, match="another process is writing"),
        RunFolder(run.path).lock(),
    ):
        pass
    with RunFolder(run.path).lock():
        pass


def test_a_folder_without_a_run_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run folder .* `vaekit train --run"):
        RunFolder(tmp_path).require_config()


def test_metrics_and_environment_come_back(run: RunFolder) -> None:
    assert Run(run.path).metrics == []
    test = {"test_loss": 3.5, "test_reconstruction": 3.0, "test_kl": 0.5}
    train = {"train_loss": 5.5, "train_reconstruction": 5.0, "train_kl": 0.5, "seconds": 1.0}
    rows = [{"epoch": 0, **test}, {"epoch": 1, **train, **test}]
    write_metrics(run.metrics, rows)
    assert Run(run.path).metrics == rows
    assert len(run.metrics.read_text().splitlines()) == 2
    append_environment(run.environment, {"start": 1})
    append_environment(run.environment, {"start": 2})
    assert '"start": 2' in run.environment.read_text()
    assert '"start": 1' in run.environment.read_text()


def test_weights_come_back_with_their_model_and_class_names(run: RunFolder) -> None:
    vae = tiny_vae(run)
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


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_that_are_not_the_models_are_refused(run: RunFolder, change: str) -> None:
    write_weights(run, tiny_vae(run), (), "abc")
    tensors, facts = read_tensors(run.model, **KIND)
    if change == "missing":
        del tensors["enc.mu.bias"]
    elif change == "extra":
        tensors["enc.extra"] = torch.ones(1)
    else:
        tensors["enc.mu.bias"] = torch.ones(99)
    write_tensors(run.model, tensors, facts, **KIND)
    with pytest.raises(UserError, match=r"(?s)model\.safetensors: .*enc\.(mu\.bias|extra)"):
        Run(run.path).weights
