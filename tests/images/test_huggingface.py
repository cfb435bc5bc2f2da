"""Hugging Face data sets from local files; nothing here asks the Hub."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_helpers import fault, flat, flip_a_bit, load, values
from PIL import Image

from vaekit.images import cache, shards
from vaekit.images.mapped import Mapped
from vaekit.images.sets import count

datasets: Any = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cache is for this test alone, and the Hub out of reach."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


PICTURE, PETS = datasets.Image(), datasets.ClassLabel(names=["cat", "dog"])
NUMBER, WORD, BYTES = (datasets.Value(kind) for kind in ("int64", "string", "binary"))


def png(value: int, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(flat(value)).save(file, "PNG", **options)
    return file.getvalue()


def rows(*numbers: int, **features: Any) -> Any:
    """Images of one value each; a label is whether the value is odd."""
    columns = {
        "image": [{"bytes": png(number), "path": None} for number in numbers],
        "file": [png(number) for number in numbers],
        "array": [flat(number).tolist() for number in numbers],
        "pet": [number % 2 for number in numbers],
        "label": [str(number % 2) for number in numbers],
        "id": [*numbers],
    }
    chosen = {name: columns[name.rstrip("0123456789")] for name in features}
    return datasets.Dataset.from_dict(chosen, features=datasets.Features(features))


def one_parquet(splits: dict[str, Any], root: Path) -> Path:
    (split,) = splits.values()
    split.to_parquet(root / "all.parquet")
    return root / "all.parquet"


def parquet_folder(splits: dict[str, Any], root: Path) -> Path:
    for name, split in splits.items():
        split.to_parquet(root / "data" / f"{name}-00000-of-00001.parquet")
    return root / "data"


def saved_to_disk(splits: dict[str, Any], root: Path) -> Path:
    datasets.DatasetDict(splits).save_to_disk(root / "saved")
    return root / "saved"


@pytest.mark.parametrize("put", [parquet_folder, saved_to_disk])
def test_the_splits_of_a_data_set_are_the_sides(
    put: Callable[[dict[str, Any], Path], Path], tmp_path: Path
) -> None:
    splits = {
        "train": rows(0, 1, 2, 3, image=PICTURE, pet=PETS, id=NUMBER),
        "validation": rows(10, 11, image=PICTURE, pet=PETS, id=NUMBER),
        "test": rows(20, 21, image=PICTURE, pet=PETS, id=NUMBER),
    }
    loaded = load(put(splits, tmp_path), "datasets", image_size=8)
    assert loaded.class_names == ("cat", "dog")
    assert loaded.validation is not None
    for image_set, numbers in (
        (loaded.train, [0, 1, 2, 3]),
        (loaded.validation, [10, 11]),
        (loaded.test, [20, 21]),
    ):
        assert values(image_set) == numbers
        assert image_set.labels is not None
        assert image_set.labels.tolist() == [number % 2 for number in numbers]
    assert loaded.reading.remarks[0] == "images are those of the column image, labels those of pet"


@pytest.mark.parametrize(
    ("features", "classes"),
    [
        ({"image": PICTURE, "pet": PETS}, ("cat", "dog")),
        ({"image": PICTURE, "label": WORD, "id": NUMBER}, ("0", "1")),
        ({"image": PICTURE, "id": NUMBER}, ()),
        ({"array": datasets.Array2D((8, 8), "uint8"), "pet": PETS}, ("cat", "dog")),
        ({"file": BYTES, "pet": PETS}, ("cat", "dog")),
        ({"image": {"bytes": BYTES, "path": WORD}, "pet": PETS}, ("cat", "dog")),
    ],
    ids=["typed", "words", "unlabelled", "arrays", "bytes", "bytes-and-path"],
)
def test_one_parquet_file_is_split_and_its_columns_go_by_type(
    features: dict[str, Any], classes: tuple[str, ...], tmp_path: Path
) -> None:
    path = one_parquet({"train": rows(*range(40), **features)}, tmp_path)
    loaded = load(path, "datasets", image_size=8)
    assert loaded.class_names == classes
    assert len(loaded.test.pixels) == 4
    assert sorted(values(loaded.train) + values(loaded.test)) == list(range(40))
    if classes:
        assert loaded.test.labels is not None
        assert loaded.test.labels.tolist() == [number % 2 for number in values(loaded.test)]
    assert loaded.test.files == tuple(f"train_images[{number}]" for number in values(loaded.test))


def test_what_could_be_meant_twice_is_named_and_chosen_by_a_flag(tmp_path: Path) -> None:
    features = {"image": PICTURE, "image2": PICTURE, "pet": PETS, "pet2": PETS}
    path = one_parquet({"train": rows(*range(20), **features)}, tmp_path)
    line = fault(path, "datasets", image_size=8)
    assert "image, image2 could each be meant; say which one with --data.image_column" in line
    line = fault(path, "datasets", image_size=8, image_column="image2")
    assert "pet, pet2 could each be meant; say which one with --data.label_column" in line
    loaded = load(path, "datasets", image_size=8, image_column="image2", label_column="pet")
    assert loaded.class_names == ("cat", "dog")
    line = fault(path, "datasets", image_column="image3")
    assert "--data.image_column image3: expected one of image, image2, pet, pet2" in line


def test_files_in_a_data_set_are_read_as_those_of_a_folder(tmp_path: Path) -> None:
    """Deep ones by a range that is recorded, transparent ones on a ground."""
    deep = io.BytesIO()
    Image.fromarray(np.full((8, 8), 1023, np.uint16)).save(deep, "PNG")
    hidden = io.BytesIO()
    Image.fromarray(np.full((8, 8, 4), (0, 0, 0, 0), np.uint8)).save(hidden, "PNG")
    files = [deep.getvalue(), hidden.getvalue()] * 10
    split = datasets.Dataset.from_dict({"image": files}, features=datasets.Features(image=PICTURE))
    loaded = load(
        saved_to_disk({"train": split, "test": split}, tmp_path),
        "datasets",
        image_size=8,
        background="white",
    )
    assert set(values(loaded.train)) == {255}
    assert loaded.data.value_range == "0,1023"


def broken(root: Path) -> Path:
    features = datasets.Features(image=PICTURE)
    split = datasets.Dataset.from_dict({"image": [png(1), png(2)[:40]]}, features=features)
    return one_parquet({"train": split}, root)


def no_images(root: Path) -> Path:
    return one_parquet({"train": rows(1, 2, id=NUMBER)}, root)


def other_splits(root: Path) -> Path:
    return saved_to_disk({"unsupervised": rows(1, 2, image=PICTURE)}, root)


def no_parquet(root: Path) -> Path:
    (root / "all.parquet").write_bytes(b"PAR1 but no more")
    return root / "all.parquet"


def text(root: Path) -> Path:
    (root / "all.txt").write_text("no data set")
    return root / "all.txt"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (broken, "can't read row 1 ("),
        (no_images, "none of the columns id is one of images"),
        (other_splits, "the splits unsupervised, expected train"),
        (no_parquet, "expected a parquet file"),
        (text, "a file that is neither .parquet nor .arrow"),
        (lambda root: root / "gone" / "all.parquet", "no such file or folder"),
    ],
)
@pytest.mark.injects(11)
def test_a_data_set_that_cannot_be_used_is_named(
    make: Callable[[Path], Path], words: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    line = fault(path, "datasets", image_size=8)
    assert str(path) in line
    assert words in line


def test_a_name_that_is_not_to_be_had_is_said_in_a_line() -> None:
    line = fault(Path("nobody/nothing-here"), "datasets")
    assert "--data.root nobody/nothing-here: " in line
    assert "a name on the Hub as OWNER/NAME" in line


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaekit.images.huggingface.find_spec", lambda name: None)
    assert "`pip install 'vaekit[datasets]'`" in fault(Path("x"), "datasets")


@pytest.mark.injects(5)
def test_a_large_set_lies_in_shards_in_the_cache_of_datasets_and_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = rows(*range(30), *range(10), image=PICTURE, pet=PETS)  # some are equal
    path = one_parquet({"train": made}, tmp_path)
    settings: dict[str, Any] = {"name": "datasets", "image_size": 8, "validation": 5}
    whole = load(path, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "IN_MEMORY_BYTES", 0)
        patch.setattr(shards, "MOST_FILES", 7)
        first = load(path, **settings)
        patch.setattr(shards, "decode_files", None)
        again = load(path, **settings)
        for mapped in (first, again):
            assert isinstance(mapped.train.pixels, Mapped)
            assert mapped.sha256() == replace(mapped, facts=None).sha256() == whole.sha256()
            assert count(mapped) == count(whole)
            assert list(mapped.train.files or ()) == list(whole.train.files or ())
            assert mapped.train.labels is not None
            np.testing.assert_array_equal(mapped.train.labels, whole.train.labels)
        patch.undo()
        patch.setattr(cache, "IN_MEMORY_BYTES", 0)
        shard = next((tmp_path / "cache").rglob("shard-*[0-9a-f].npy"))
        shard.write_bytes(flip_a_bit(shard.read_bytes()))
        capsys.readouterr()
        assert load(path, **settings).sha256() == whole.sha256()
    assert "it is made again from the files" in capsys.readouterr().err
