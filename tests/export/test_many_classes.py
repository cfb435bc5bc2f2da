"""An export of hundreds of classes as a whole: from images to a bundle that is checked."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from bundle_helpers import facts_of
from conftest import tiny_config

from vaekit.config import DataConfig, SvmConfig
from vaekit.export.bundle import export_run
from vaekit.export.verify import verify
from vaekit.runs.run import Run
from vaekit.stages.latents import extract_latents
from vaekit.stages.svm import fit_svm
from vaekit.svm.table import predict
from vaekit.train import train

NUM_CLASSES = 250
OF_EACH = 5


@pytest.mark.slow
def test_hundreds_of_classes_go_from_images_to_a_bundle(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(NUM_CLASSES), OF_EACH)
    prototypes = np.kron(generator.integers(0, 256, (NUM_CLASSES, 4, 4)), np.ones((2, 2)))
    images = prototypes[labels] + generator.normal(scale=25, size=(len(labels), 8, 8))
    np.savez(tmp_path / "set.npz", images=np.clip(images, 0, 255).astype(np.uint8), labels=labels)
    data = DataConfig(name="arrays", root=str(tmp_path / "set.npz"), holdout=NUM_CLASSES)
    train(tiny_config(tmp_path / "run", data=data, batch_size=100, epochs=1))
    extract_latents(Run(tmp_path / "run"))
    fit_svm(Run(tmp_path / "run"), SvmConfig())
    run = Run(tmp_path / "run")

    bundle = export_run(run)

    assert verify(bundle)
    facts = facts_of(bundle)
    assert "decisions" not in {each["name"] for each in facts["graphs"]["svm.onnx"]["outputs"]}
    assert (bundle / "svm.onnx").stat().st_size < 5e6  # a weight for each pair would take 150 MB
    assert len((bundle / "labels.txt").read_text().splitlines()) == NUM_CLASSES
    classifier = onnxruntime.InferenceSession(bundle / "classifier.onnx")
    (found,) = classifier.run(["label"], {"image": run.images.test.pixels})
    expected = predict(run.svm.table, run.latents.test).labels
    undecided = facts["check"]["undecided_images"]
    assert set(np.flatnonzero(found != expected)) <= set(undecided)
    assert len(undecided) < NUM_CLASSES / 4
