"""The memory that each stage takes at most, each in a process of its own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.defaults import set_for_training
from bench.made_up import clouds, noisy_images
from bench.trainings import SMALL
from vaekit.config import DataConfig, SvmConfig, TrainConfig
from vaekit.models.settle import REFERENCE
from vaekit.runs.run import Run
from vaekit.runs.svm import Svm, write_table
from vaekit.svm.fit import fit_table
from vaekit.training.ranks import start_ranks

MeasureMemory = Callable[..., None]

NUM_IMAGES, FEW_IMAGES = 2048, 256  # few where nothing is timed
NUM_LATENTS, FEW_LATENTS = 40_000, 500

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)


@pytest.fixture(scope="module")
def folder(is_quick: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages of `bench.stages` work on."""
    folder = tmp_path_factory.mktemp("memory")
    latents, labels = clouds(FEW_LATENTS if is_quick else NUM_LATENTS)
    np.save(folder / "pixels.npy", noisy_images(FEW_IMAGES if is_quick else NUM_IMAGES))
    np.save(folder / "latents.npy", latents)
    np.save(folder / "labels.npy", labels)
    table = fit_table(latents, labels, SvmConfig())
    write_table(folder / "svm.safetensors", Svm(table, tuple("0123456789"), "", ""))
    return folder


@pytest.fixture(scope="module")
def exported(is_quick: bool, folder: Path) -> Path:
    """The same with a run that has a bundle, of a model that has seen two batches of digits."""
    for package in ("jsonargparse", "PIL", "jinja2", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    from vaekit.export.bundle import export_run
    from vaekit.stages.latents import extract_latents
    from vaekit.stages.svm import fit_svm
    from vaekit.train import train

    run = folder / "run"
    model = SMALL if is_quick else REFERENCE
    data = DataConfig(name="digits", limit=256)
    with set_for_training(start_ranks().device):
        train(TrainConfig(run=str(run), data=data, model=model, epochs=1, mixed_precision="no"))
    extract_latents(Run(run))
    fit_svm(Run(run), SvmConfig())
    export_run(Run(run))
    return folder


def test_train(measure_memory: MeasureMemory, folder: Path) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    measure_memory("train", folder, "train", peer="reference's loop", theirs="train_with_loader")


def test_latents(measure_memory: MeasureMemory, folder: Path) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    measure_memory(
        "latents",
        folder,
        "encode_latents",
        peer="DataLoader loop",
        theirs="encode_latents_with_loader",
    )


def test_svm_fit(measure_memory: MeasureMemory, folder: Path) -> None:
    measure_memory("SVM fit", folder, "fit", peer="scikit-learn", theirs="fit_with_scikit_learn")


def test_svm_predict(measure_memory: MeasureMemory, folder: Path) -> None:
    measure_memory("SVM predict", folder, "predict")


def test_export(measure_memory: MeasureMemory, exported: Path) -> None:
    measure_memory("export", exported, "export")


def test_encode(measure_memory: MeasureMemory, exported: Path) -> None:
    measure_memory("encode", exported, "encode", peer="PyTorch eager", theirs="encode_with_pytorch")


def test_classify(measure_memory: MeasureMemory, exported: Path) -> None:
    measure_memory("image to label", exported, "classify")
