"""Folders of images: right labels, two sets, and one plain line for what can't be used."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_helpers import fault, flat, load, values, write, write_pets


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_pets(tmp_path / "pets")


def test_a_folder_of_classes_gives_each_image_its_label(pets: Path) -> None:
    loaded = load(pets, image_size=8)
    assert loaded.class_names == ("cat", "dog")
    assert loaded.shape == (1, 8, 8)
    for image_set, expected in (
        (loaded.train, [0, 1, 2, 3, 4, 5, 100, 101, 102, 103, 104, 105]),
        (loaded.test, [10, 11, 12, 110, 111, 112]),
    ):
        assert sorted(values(image_set)) == expected
        assert image_set.labels is not None
        assert image_set.labels.dtype == np.int64
        assert image_set.labels.tolist() == [int(value >= 100) for value in values(image_set)]


def test_the_first_images_of_a_folder_are_not_all_of_one_class(pets: Path) -> None:
    loaded = load(pets, image_size=8, limit=4)
    assert len(loaded.train.pixels) == len(loaded.test.pixels) == 4
    assert loaded.train.labels is not None
    assert set(loaded.train.labels.tolist()) == {0, 1}


def test_a_test_class_is_an_index_into_the_class_names_of_training(pets: Path) -> None:
    for path in (pets / "test" / "cat").iterdir():
        path.unlink()
    (pets / "test" / "cat").rmdir()
    loaded = load(pets, image_size=8)
    assert loaded.test.labels is not None
    assert loaded.test.labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize("labelled", [True, False])
def test_one_tree_is_split_by_seed_with_a_tenth_for_the_test(
    labelled: bool, tmp_path: Path
) -> None:
    for i in range(40):
        folder = ("a" if i < 30 else "b") if labelled else ""
        write(tmp_path / folder / f"{i}.png", flat(i))
    loaded = load(tmp_path, seed=3, image_size=8)
    assert len(loaded.test.pixels) == 4
    assert sorted(values(loaded.train) + values(loaded.test)) == list(range(40))
    if labelled:
        assert loaded.test.labels is not None
        assert sorted(loaded.test.labels.tolist()) == [0, 0, 0, 1]
    else:
        assert loaded.class_names == ()
        assert loaded.train.labels is None
        assert loaded.test.labels is None
    assert load(tmp_path, seed=3, image_size=8).sha256() == loaded.sha256()
    assert load(tmp_path, seed=4, image_size=8).sha256() != loaded.sha256()


def empty(root: Path) -> None:
    root.mkdir()


def no_test_folder(root: Path) -> None:
    write(root / "train" / "cat" / "0.png", flat(0))


def loose_beside_classes(root: Path) -> None:
    write(root / "cat" / "0.png", flat(0))
    write(root / "loose.png", flat(0))


def new_class_in_test(root: Path) -> None:
    write(root / "train" / "cat" / "0.png", flat(0))
    write(root / "test" / "bird" / "0.png", flat(0))


def labels_in_train_only(root: Path) -> None:
    write(root / "train" / "cat" / "0.png", flat(0))
    write(root / "test" / "0.png", flat(0))


def one_image(root: Path) -> None:
    write(root / "0.png", flat(0))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda root: None, "no such folder; expected {root}/train/CLASS/*.png"),
        (empty, "{root}: no images; expected {root}/train/CLASS/*.png"),
        (no_test_folder, "{root}/test: no such folder"),
        (loose_beside_classes, "loose.png beside class folders"),
        (new_class_in_test, "{root}/test: bird not among the classes of {root}/train"),
        (labels_in_train_only, "one of train and test has class folders"),
        (one_image, "one image can't be split"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.injects(12)
def test_a_folder_that_cannot_be_used_says_why(
    make: Callable[[Path], None], expected: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    make(root)
    assert expected.format(root=root) in fault(root)
