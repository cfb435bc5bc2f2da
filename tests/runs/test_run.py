"""A run is read once, and its parts belong together."""

import hashlib
import shutil
import sys
from collections import Counter
from copy import deepcopy
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_command

import vaekit
from vaekit import settings
from vaekit.config import SvmConfig
from vaekit.errors import UserError
from vaekit.export.bundle import export_run
from vaekit.runs.run import Run
from vaekit.runs.weights import write_weights
from vaekit.stages.latents import extract_latents
from vaekit.stages.svm import fit_svm
from vaekit.storage import files


@pytest.fixture
def path(finished_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def test_the_parts_of_a_run_are_those_that_the_stages_left(finished_run: Path) -> None:
    run = vaekit.Run(finished_run)
    assert repr(run) == f"Run({str(finished_run)!r})"
    assert run.config.epochs == 2
    assert [row["epoch"] for row in run.metrics] == [0, 1, 2]
    assert run.environment[-1]["mixed_precision"] == "no"
    assert run.images.train.pixels.shape == (96, 1, 28, 28)
    assert run.latents.train.shape == (96, 6)
    mean = run.weights.vae.enc(torch.from_numpy(run.images.test.pixels[:1] / np.float32(255))).mean
    np.testing.assert_allclose(run.latents.test[:1, :3], mean, atol=1e-5)
    assert run.svm.class_names == run.weights.class_names == tuple("0123456789")
    assert run.svm_metrics["num_support_vectors"] == len(run.svm.table.support_vectors)


def test_a_part_is_read_when_it_is_asked_for_and_then_kept(path: Path) -> None:
    run = Run(path)
    metrics = run.metrics
    shutil.rmtree(path)
    assert run.metrics is metrics
    with pytest.raises(UserError, match="no latents yet"):
        run.latents


@pytest.mark.parametrize("part", ["weights", "svm", "latents", "evaluation", "reading"])
def test_a_part_of_a_newer_version_is_refused_as_such(
    part: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module(f"vaekit.runs.{part}")
    monkeypatch.setattr(module, "FORMAT_VERSION", module.FORMAT_VERSION - 1)  # an older vaekit
    newer = r"format version \d, expected \d, so it is of a newer vaekit: install that; .*`vaekit"
    with pytest.raises(UserError, match=newer):
        getattr(Run(path), part)


def test_a_part_that_was_made_anew_is_read_again(path: Path) -> None:
    run = Run(path)
    before = run.sha256("weights")
    run.folder.model.write_bytes(b"others")
    assert run.sha256("weights") == before
    run.forget("weights")
    assert run.sha256("weights") == hashlib.sha256(b"others").hexdigest()
    with pytest.raises(UserError, match="remove it and make it again"):
        run.weights


@pytest.mark.slow
@pytest.mark.usefixtures("ready_graphs")
def test_an_export_parses_each_file_and_hashes_each_file_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: Counter[Path] = Counter()
    hashed: Counter[Path] = Counter()
    read_config, file_sha256 = settings.read_config, files.file_sha256

    def counted_config(kind: type[object], place: Path) -> object:
        parsed[place] += 1
        return read_config(kind, place)

    def counted_sha256(place: Path) -> str:
        hashed[place] += 1
        return file_sha256(place)

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("vaekit"):
            for name, counted in (("read_config", counted_config), ("file_sha256", counted_sha256)):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, counted)
    export_run(Run(path))
    assert parsed == {path / "config.yaml": 1}
    of_run = {place: count for place, count in hashed.items() if ".tmp-onnx" not in str(place)}
    assert of_run == dict.fromkeys(
        [
            path / "model.safetensors",
            path / "svm" / "svm.safetensors",
            *(path / "latents").glob("*.npy"),
            path / "latents" / "index.parquet",
        ],
        1,
    )


@pytest.mark.slow
def test_what_a_run_recorded_is_read_without_torch(finished_run: Path) -> None:
    parts = "config, run.environment, run.reading, run.metrics, run.latents, run.svm_metrics"
    run = f"import sys, vaekit; run = vaekit.Run({str(finished_run)!r}); run.{parts}"
    result = run_command([sys.executable, "-c", f"{run}; print('torch' in sys.modules)"])
    assert result.stdout == "False\n", result.stderr


def test_vaekit_hands_its_names_on() -> None:
    assert set(vaekit.__all__) <= set(dir(vaekit))
    with pytest.raises(AttributeError, match="has no attribute 'Runn'"):
        vaekit.Runn


def test_latents_are_bound_to_the_weights_that_made_them(path: Path) -> None:
    run = Run(path)
    before = run.weights
    other = deepcopy(before.vae)
    torch.nn.init.zeros_(other.enc.mu.bias)
    write_weights(run.folder, other, before.class_names, before.images_sha256)
    extract_latents(run)  # the run has read the weights of before
    with pytest.raises(UserError, match="made from other weights"):
        Run(path).latents


def test_what_a_stage_made_anew_is_read_anew(path: Path) -> None:
    run = Run(path)
    before = run.svm_metrics
    fit_svm(run, SvmConfig(C=0.5))
    assert run.svm_metrics["C"] == 0.5 != before["C"]
    extract_latents(run)
    assert run.latents.sha256 == run.svm.latents_sha256  # the same weights give the same latents
