"""Latents of anyone's files as a table, whatever the run has beside its weights."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_helpers import flat, write
from pyarrow import parquet

from vaekit.errors import UserError
from vaekit.runs.run import Run
from vaekit.stages import tables
from vaekit.stages.encode import encode

MEANS = ["z1", "z2", "z3"]
LOG_VARIANCES = [f"{name}_log_variance" for name in MEANS]


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def numbers(rows: list[dict[str, Any]], names: list[str]) -> Any:
    return np.array([[row[name] for name in names] for row in rows], np.float32)


def test_files_of_training_images_get_the_latents_of_the_run(
    folder_run: Path, tmp_path: Path
) -> None:
    run = Run(folder_run)
    root = Path(run.data.root)
    expected = {str(root / str(row.file)): (row.label, row.class_name) for row in run.latents.rows}
    latents = dict(
        zip(expected, np.concatenate([run.latents.train, run.latents.test]), strict=True)
    )
    encode(run, [root], tmp_path / "all.csv", log_variances=True)
    rows = table(tmp_path / "all.csv")
    assert {row["file"] for row in rows} == {*expected}
    assert [row["row"] for row in rows] == [str(number) for number in range(len(rows))]
    assert list(rows[0])[-6:] == MEANS + LOG_VARIANCES
    if run.weights.class_names:
        labels = {row["file"]: (int(row["label"]), row["class_name"]) for row in rows}
        assert labels == expected
    else:
        assert list(rows[0])[:2] == ["row", "file"]
        assert "label" not in rows[0]
    np.testing.assert_allclose(
        numbers(rows, MEANS + LOG_VARIANCES),
        [latents[row["file"]] for row in rows],
        rtol=1e-4,
        atol=1e-5,
    )


def test_without_images_the_table_is_that_of_the_run(folder_run: Path, tmp_path: Path) -> None:
    run = Run(folder_run)
    encode(run, [], tmp_path / "run.csv")
    rows = table(tmp_path / "run.csv")
    index = parquet.read_table(folder_run / "latents" / "index.parquet").to_pylist()
    shown = [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in index
    ]
    assert [{name: row[name] for name in index[0]} for row in rows] == shown
    every = np.concatenate([run.latents.train, run.latents.test])
    assert numbers(rows, MEANS).tolist() == every[:, :3].tolist()


def test_every_kind_of_table_holds_the_same(folder_run: Path, tmp_path: Path) -> None:
    root = Path(Run(folder_run).data.root)
    for suffix in tables.SUFFIXES:
        encode(Run(folder_run), [root], tmp_path / f"z{suffix}")
    rows = table(tmp_path / "z.csv")
    array = np.load(tmp_path / "z.npy")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, numbers(rows, MEANS))
    index = table(tmp_path / "z.index.csv")
    assert index == [{name: row[name] for name in index[0]} for row in rows]
    stored = parquet.read_table(tmp_path / "z.parquet").to_pylist()
    assert [list(row) for row in stored] == [list(row) for row in rows]
    assert [row["file"] for row in stored] == [row["file"] for row in rows]
    np.testing.assert_array_equal(array, numbers(stored, MEANS))


def test_a_file_gets_the_label_of_its_folder_where_that_is_a_class(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The classes are the digits."""
    for name in ("3/a.png", "3/more/b.png", "mixed/c.png", "mixed/7/d.png"):
        write(tmp_path / name, flat(9))
    given = [tmp_path / "3", tmp_path / "mixed", tmp_path / "mixed" / "7" / "d.png"]
    encode(Run(finished_run), given, None)
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["label"] for row in rows] == ["3", "3", "7", "", "7"]
    assert [row["class_name"] for row in rows] == ["3", "3", "7", "", "7"]


@pytest.mark.parametrize(
    ("output", "words"),
    [("z.txt", r"ends in \.csv, \.parquet, \.npy"), ("z", "ends in"), (".", "ends in")],
)
def test_a_table_of_no_known_kind_is_refused_before_any_work(
    finished_run: Path, tmp_path: Path, output: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        encode(Run(finished_run), [tmp_path / "nowhere.png"], tmp_path / output)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nothing", "nothing: no image that can be read"),
        ("notes", "notes: no image that can be read"),
        ("nowhere", "can't read .*nowhere"),
        ("notes/notes.txt", r"can't read .*notes\.txt"),
    ],
)
def test_nothing_to_encode_is_said_in_a_line(
    finished_run: Path, tmp_path: Path, given: str, words: str
) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=words):
        encode(Run(finished_run), [tmp_path / given], None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda pixels: pixels, None),
        (lambda pixels: 255 - pixels, "5 of 5 images look inverted"),
        (lambda pixels: pixels // 8, "5 of 5 images are brighter, darker, flatter"),
        (lambda pixels: 0 * pixels, "5 of 5 images are brighter, darker, flatter"),
    ],
    ids=["plain", "inverted", "faint", "black"],
)
def test_images_that_look_unlike_the_training_set_are_told(
    finished_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Any,
    words: str | None,
) -> None:
    for index, pixels in enumerate(Run(finished_run).images.test.pixels[:5]):
        write(tmp_path / f"{index}.png", change(pixels[0]))
    capsys.readouterr()
    encode(Run(finished_run), [tmp_path], None)
    error = capsys.readouterr().err
    assert (words or "") in error
    assert ("warning" in error) == (words is not None)
