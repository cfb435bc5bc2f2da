"""A trained run generates images and classifies files."""

import csv
from pathlib import Path

import numpy as np
import pytest
from image_helpers import write

from vaekit.errors import UserError
from vaekit.runs.run import Run
from vaekit.stages.predict import predict_files
from vaekit.svm.table import predict


@pytest.fixture
def test_files(finished_run: Path, tmp_path: Path) -> list[Path]:
    """The first five test images as PNG files."""
    images = Run(finished_run).images.test.pixels[:5]
    return [write(tmp_path / f"{i}.png", image[0]) for i, image in enumerate(images)]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_files_of_test_images_get_the_labels_and_latents_of_the_stages(
    finished_run: Path, test_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    predict_files(Run(finished_run), test_files, with_latents=True)
    rows = rows_of(capsys.readouterr().out)
    latents = Run(finished_run).latents.test[:5]
    svm = Run(finished_run).svm
    expected = predict(svm.table, latents)
    assert [row["file"] for row in rows] == [str(path) for path in test_files]
    assert [int(row["label"]) for row in rows] == expected.labels.tolist()
    assert [row["class_name"] for row in rows] == [svm.class_names[i] for i in expected.labels]
    scores = [[float(row[f"score_{name}"]) for name in svm.class_names] for row in rows]
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-4)
    values = [
        [float(row[f"z{i}{part}"]) for part in ("", "_log_variance") for i in (1, 2, 3)]
        for row in rows
    ]
    np.testing.assert_allclose(values, latents, rtol=1e-4, atol=1e-5)


def test_latents_are_left_out_unless_asked_for(
    finished_run: Path, test_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    predict_files(Run(finished_run), test_files[:1], with_latents=False)
    header = capsys.readouterr().out.splitlines()[0]
    assert header == "file,label,class_name," + ",".join(f"score_{i}" for i in range(10))


def test_an_unlabelled_run_names_the_command_that_encodes(
    unlabelled_run: Path, test_files: list[Path]
) -> None:
    with pytest.raises(UserError, match=rf"without labels.*`vaekit encode {unlabelled_run}`"):
        predict_files(Run(unlabelled_run), test_files, with_latents=True)


def test_a_folder_is_its_images_and_what_cannot_be_read_is_left_out_where_asked(
    finished_run: Path, test_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = test_files[0].parent
    (folder / "notes.txt").write_text("no image")
    (folder / "below").mkdir()
    test_files[4].rename(folder / "below" / "4.png")
    test_files[3].write_bytes(test_files[3].read_bytes()[:-30])
    with pytest.raises(UserError, match=r"can't read .*3\.png \(.*\).*--skip_unreadable"):
        predict_files(Run(finished_run), [folder], with_latents=False)
    capsys.readouterr()
    predict_files(Run(finished_run), [folder], with_latents=False, skip_unreadable=True)
    out, err = capsys.readouterr()
    names = [row["file"] for row in rows_of(out)]
    assert names == [str(folder / name) for name in ("0.png", "1.png", "2.png", "below/4.png")]
    assert f"not used: 1 files that are no images ({folder}/notes.txt)" in err
    assert f"going on without 1 of 6 files: {folder}/3.png (" in err
