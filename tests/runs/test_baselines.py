"""A run is measured beside what takes no training, once, and anew for other weights."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vaekit.report.page import measure_missing_baselines
from vaekit.runs.folder import RunFolder
from vaekit.runs.products import BASELINES
from vaekit.runs.run import Run
from vaekit.runs.weights import write_weights


def test_the_errors_are_of_the_kept_weights_and_the_whole_test_set(finished_run: Path) -> None:
    run = Run(finished_run)
    baselines = run.baselines
    assert baselines is not None
    images = torch.from_numpy(run.images.test.pixels / np.float32(255))
    vae = run.weights.vae
    mse = float((vae.decode(vae.encode(images).mean) - images).square().mean())
    assert baselines["vae"]["mse"] == pytest.approx(mse, rel=1e-4)
    assert baselines["vae"]["psnr"] == pytest.approx(10 * math.log10(1 / mse), rel=1e-4)
    mean = run.images.train.pixels.mean(axis=0) / 255
    assert baselines["mean_image"]["mse"] == pytest.approx(
        np.square(images.numpy() - mean).mean(), rel=1e-4
    )
    assert [each["components"] for each in baselines["pca"]] == [3, 6]
    assert baselines["mean_image"]["mse"] > baselines["pca"][0]["mse"] > baselines["pca"][1]["mse"]
    assert run.pca_scores is not None
    assert [scores.shape for scores in run.pca_scores] == [(96, 6), (96, 6)]


def test_a_run_without_baselines_gets_them_with_its_report(finished_run: Path, run: Path) -> None:
    shutil.rmtree(run / "baselines")
    old = Run(run)
    assert old.baselines is None
    assert old.pca_scores is None
    measure_missing_baselines(old)
    assert old.baselines == Run(finished_run).baselines
    path = BASELINES.path(old.folder)
    assert path.read_bytes() == BASELINES.path(Run(finished_run).folder).read_bytes()


def test_baselines_of_other_weights_are_measured_anew(run: Path) -> None:
    path = run / "baselines" / "baselines.json"
    before = path.read_bytes()
    weights = Run(run).weights
    torch.nn.init.zeros_(next(weights.vae.parameters()))
    write_weights(RunFolder(run), weights.vae, weights.class_names, weights.images_sha256)
    assert Run(run).baselines is None
    measure_missing_baselines(Run(run))
    assert Run(run).baselines is not None
    assert path.read_bytes() != before
