"""Images that don't belong are told from those that do, and files like them are found."""

import csv
from pathlib import Path

import numpy as np
import pytest
from image_helpers import write
from PIL import Image

from vaekit.errors import UserError
from vaekit.report.scores import NUM_SHOWN, write_scores_page
from vaekit.runs.run import Run
from vaekit.stages.neighbours import find_neighbours
from vaekit.stages.score import score_files

NOISE = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)


@pytest.fixture
def files(finished_run: Path, tmp_path: Path) -> Path:
    """A folder of four training images and of four of noise."""
    for index, pixels in enumerate(Run(finished_run).images.train.pixels[:4]):
        write(tmp_path / "files" / f"digit-{index}.png", pixels[0])
        write(tmp_path / "files" / f"noise-{index}.png", NOISE[index])
    return tmp_path / "files"


def test_the_table_and_the_page_say_what_is_strange(
    finished_run: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(finished_run)
    scored = score_files(run, [files], tmp_path / "scores.csv", k=3, false_alarms=0.05)
    with (tmp_path / "scores.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    names = [Path(row["file"]).stem for row in rows]
    assert names == sorted(f"{kind}-{i}" for kind in ("digit", "noise") for i in range(4))
    train, z = run.latents.train[:, :3], run.encode([files]).mean
    expected = np.sort(np.linalg.norm(z[:, None] - train[None], axis=2), axis=1)[:, :3].mean(axis=1)
    assert [float(row["distance"]) for row in rows] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    mse = np.square(run.reconstruct([files]) / 255 - run.inputs([files]).pixels / 255)
    np.testing.assert_allclose(
        [float(row["mse"]) for row in rows], mse.mean(axis=(1, 2, 3)), rtol=0.05
    )
    assert "images are strange: more than" in capsys.readouterr().err
    write_scores_page(tmp_path / "scores.html", run, scored.inputs, scored.scores)
    page = (tmp_path / "scores.html").read_text()
    assert "All images, the strangest first" in page
    assert page.count("<img") == 8
    assert "http" not in page.replace("http-equiv", "")  # it opens offline


def test_many_images_are_the_strangest_and_the_most_typical(
    finished_run: Path, tmp_path: Path
) -> None:
    run = Run(finished_run)
    pixels = run.images.train.pixels[: 2 * NUM_SHOWN + 1]
    write_scores_page(tmp_path / "s.html", run, run.inputs(pixels), run.score(pixels, k=2))
    page = (tmp_path / "s.html").read_text()
    assert page.count("<img") == 2 * NUM_SHOWN
    assert page.index("The strangest") < page.index("The most typical")


def test_files_of_another_size_and_colour_are_prepared_first(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGBA", (50, 70), (200, 10, 10, 128)).save(tmp_path / "big.png")
    score_files(Run(finished_run), [tmp_path / "big.png"], None, k=3, false_alarms=0.05)
    find_neighbours(Run(finished_run), [tmp_path / "big.png"], 3, tmp_path / "n.png")
    assert capsys.readouterr().out.count("big.png") == 1 + 3
    with pytest.raises(UserError, match=r"28"):
        Run(finished_run).score(np.zeros((2, 50, 70), np.uint8))


def test_few_test_images_are_said_to_be_too_few_for_a_small_share(
    finished_run: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score_files(Run(finished_run), [files], None, k=3, false_alarms=1e-4)
    out, err = capsys.readouterr()
    assert out.startswith("file,strangeness,percentile,strange,distance,mse,reconstruction,kl")
    assert "test images can tell no share of false alarms below" in err


def test_an_array_is_scored_as_its_files_are(finished_run: Path, files: Path) -> None:
    run = Run(finished_run)
    from_files, from_array = run.score([files], k=3), run.score(run.inputs([files]).pixels, k=3)
    np.testing.assert_array_equal(from_files.strangeness, from_array.strangeness)
    assert from_array.is_strange.dtype == bool
    assert from_array.percentile.min() >= 0
    assert from_array.percentile.max() <= 100


def test_the_nearest_neighbour_of_a_training_image_is_that_image(
    finished_run: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(finished_run)
    digits = sorted(files.glob("digit-*.png"))
    find_neighbours(run, digits, 3, tmp_path / "n.png")
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 4 * 3
    nearest = rows[::3]
    assert [row["file"] for row in nearest] == [str(path) for path in digits]
    assert [(row["split"], row["row"], row["rank"]) for row in nearest] == [
        ("train", str(index), "1") for index in range(4)
    ]
    labels = run.latents.train_labels
    assert labels is not None
    assert [int(row["label"]) for row in nearest] == labels[:4].tolist()
    with Image.open(tmp_path / "n.png") as picture:
        assert picture.height == 4 * 58 - 2
    found = run.neighbours(digits, 3)
    assert found.indices[:, 0].tolist() == [0, 1, 2, 3]


def test_neighbours_of_a_run_of_files_are_files(
    folder_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(folder_run)
    root = Path(run.data.root)
    file = root / next(row.file for row in run.latents.rows if row.split == "test")
    find_neighbours(run, [file], 2, tmp_path / "n.png")
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [bool(row["neighbour"]) for row in rows] == [True, True]
    assert ("class_name" in rows[0]) == bool(run.weights.class_names)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"k": 96}, "96 neighbours.*from 1 to 95"),
        ({"k": 0}, "0 neighbours"),
        ({"false_alarms": 0.0}, "share of false alarms of 0"),
        ({"output": Path("scores.txt")}, r"ends in \.csv"),
    ],
)
def test_bad_arguments_of_a_score_are_refused(
    finished_run: Path, files: Path, arguments: dict[str, object], words: str
) -> None:
    given: dict[str, object] = {"output": None, "k": 3, "false_alarms": 0.01} | arguments
    with pytest.raises(UserError, match=words):
        score_files(Run(finished_run), [files], **given)  # type: ignore[arg-type]


def test_bad_arguments_of_neighbours_are_refused(finished_run: Path, files: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.png"):
        find_neighbours(Run(finished_run), [files], 3, Path("n.jpg"))
    with pytest.raises(UserError, match="10000 neighbours"):
        find_neighbours(Run(finished_run), [files], 10_000, Path("n.png"))
