"""What a run's latents are worth is measured, written, and shown in a table."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from vaekit.errors import UserError
from vaekit.runs.run import Run
from vaekit.stages.evaluate import evaluate


@pytest.fixture
def run(run: Path) -> Run:
    return Run(run)


def test_the_figures_are_of_the_latents_beside_pca_and_pixels(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(run, num_samples=3, num_images=20)
    out = capsys.readouterr().out
    found = Run(run.folder.path).evaluation
    latents = run.latents
    features = [latents.train[:, :3], latents.test[:, :3]]
    features = [each / np.float32(latents.train[:, :3].std()) for each in features]
    expected = [
        model.fit(features[0], latents.train_labels).score(features[1], latents.test_labels)
        for model in (SVC(C=10), KNeighborsClassifier(5))
    ]
    probes = {each["name"]: each for each in found["probes"]["features"]}
    assert [each["numbers"] for each in probes.values()] == [3, 3, 784]
    assert [probes["latents"][name] for name in ("rbf_svm", "knn")] == pytest.approx(
        expected, abs=0.02
    )
    assert [each["num_labels"] for each in probes["pixels"]["by_labels"]] == [10]
    likelihood = found["likelihood"]
    assert likelihood["nats"] <= likelihood["bound"]
    assert likelihood["bits_per_dimension"] is None  # Bernoulli pixels are no levels
    mse = run.baselines["vae"]["mse"], run.baselines["pca"][0]["mse"]
    assert [each["mse"] for each in found["reconstruction"]] == pytest.approx(mse, rel=1e-3)
    for text in ("linear SVM", "k-NN", "nats per image, Bernoulli pixels", "SSIM", "active"):
        assert text in out


def test_without_labels_the_rest_is_measured(
    unlabelled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(shutil.copytree(unlabelled_run, tmp_path / "run"))
    evaluate(run, num_samples=2, num_images=2)
    assert "no classifiers: the images have no labels" in capsys.readouterr().out
    assert run.evaluation["probes"]["features"] == []
    assert run.evaluation["reconstruction"][0]["ssim"] is None  # images of 8x8
    assert len(run.evaluation["dimensions"]) == 3


def test_of_one_class_there_are_no_classifiers(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = run.latents.train_labels
    assert labels is not None
    labels[:] = 3
    evaluate(run, num_samples=2, num_images=2)
    assert "no classifiers: the training images are of one class" in capsys.readouterr().out


@pytest.mark.parametrize("counts", [(0, 5), (5, 0)])
def test_numbers_below_one_are_refused(run: Run, counts: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=r"(samples|images) 0: expected at least 1"):
        evaluate(run, *counts)
