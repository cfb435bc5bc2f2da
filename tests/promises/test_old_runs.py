"""Old runs open for ever: every format that was ever released is kept, and read, in old_runs/.

`old_runs/VERSION` holds finished runs of that version, `digits` and `folder`, with every product,
and the images of the second. They are never made anew.
"""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from vaekit.cli import main

OLD_RUNS = Path(__file__).parent / "old_runs"
VERSIONS = sorted(path.name for path in OLD_RUNS.iterdir())
NAMES = ("digits", "folder")


@pytest.fixture(params=[f"{version}/{name}" for version in VERSIONS for name in NAMES])
def old_run(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A run of an old version, by the path that it was made at: its config names its images."""
    version, _, name = request.param.partition("/")
    shutil.copytree(OLD_RUNS / version, tmp_path / version)
    monkeypatch.chdir(tmp_path / version)
    return Path(name)


def test_the_doctor_finds_nothing_wrong(old_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", str(old_run)])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == [lines[-1]]
    assert "files are whole" in lines[-1]


def test_its_bundles_replay(old_run: Path) -> None:
    for bundle in old_run.glob("onnx*"):
        main(["export", "--check", str(bundle)])


def test_every_stage_goes_on_from_what_the_others_left(old_run: Path) -> None:
    latents = np.load(old_run / "latents" / "train_latents.npy")
    for command in ("report", "export", "doctor", "latents", "svm", "report"):
        main([command, str(old_run)])
    for bundle in old_run.glob("onnx*"):
        shutil.rmtree(bundle)  # of the SVM before
    main(["doctor", str(old_run)])
    np.testing.assert_allclose(
        np.load(old_run / "latents" / "train_latents.npy"), latents, atol=1e-5
    )


def test_it_generates_and_predicts(old_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", str(old_run), "--count", "4"])
    assert Path("generated.png").is_file()
    capsys.readouterr()
    images = sorted(Path("images").rglob("*.png"))
    main(["predict", str(old_run), *map(str, images), "--latents"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["file"] for row in rows] == [str(path) for path in images]


def test_it_is_evaluated_and_compared_with_files(
    old_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(path) for path in sorted(Path("images").rglob("*.png"))]
    main(["evaluate", str(old_run), "--samples", "2", "--images", "2"])
    assert "minus log-likelihood" in capsys.readouterr().out
    main(["score", str(old_run), *images, "--k", "3", "--output", "scores.csv"])
    assert len(Path("scores.csv").read_text().splitlines()) == 1 + len(images)
    assert Path("scores.html").is_file()
    capsys.readouterr()
    main(["neighbours", str(old_run), *images, "--k", "2"])
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 * len(images)
    main(["reconstruct", str(old_run), *images, "--output", "again"])
    main(["interpolate", str(old_run), images[0], images[-1], "--output", "between.npy"])
    assert len(list(Path("again").iterdir())) == len(images)
    assert len(np.load("between.npy")) == 8


def test_training_resumes_to_the_same_weights(old_run: Path) -> None:
    model = old_run / "model.safetensors"
    whole = load_file(model)
    max((old_run / "checkpoints").iterdir()).unlink()  # as if it had ended an epoch earlier
    model.unlink()
    main(["train", "--config", str(old_run / "config.yaml"), "--run", str(old_run)])
    resumed = load_file(model)
    assert resumed.keys() == whole.keys()
    for name, tensor in whole.items():  # another processor rounds in other ways
        np.testing.assert_allclose(resumed[name].numpy(), tensor.numpy(), atol=1e-5)
