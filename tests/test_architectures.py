"""A strided run of pixels with a scale does whatever one of the reference does."""

from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from safetensors.torch import load_file

from vaekit.config import ModelConfig, SvmConfig, TrainConfig
from vaekit.export.bundle import export_run
from vaekit.report.page import write_report
from vaekit.runs.run import Run
from vaekit.stages.latents import extract_latents
from vaekit.stages.svm import fit_svm
from vaekit.train import train


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit_and_goes_through_every_stage(tmp_path: Path) -> None:
    model = ModelConfig("conv", "gaussian", 3, width=2)
    config = tiny_config(tmp_path / "run", model=model)
    train(config)
    run = Run(tmp_path / "run")
    whole = load_file(run.folder.model)

    max(run.folder.checkpoints.iterdir()).unlink()  # as if it had ended an epoch earlier
    run.folder.model.unlink()
    train(TrainConfig(**{**vars(config), "model": ModelConfig()}))  # auto is what it recorded
    for name, tensor in load_file(run.folder.model).items():
        assert torch.equal(tensor, whole[name]), name

    run = Run(tmp_path / "run")
    extract_latents(run)
    fit_svm(Run(tmp_path / "run"), SvmConfig())
    page = write_report(Run(tmp_path / "run")).read_text()
    assert run.weights.vae.likelihood.unit in page
    assert export_run(Run(tmp_path / "run"), "fp16").is_dir()
