"""Arrays and IDX files of one's own: what lies in them, or one line for what can't be used."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_helpers import fault, flat, idx, load, values, write
from numpy.typing import NDArray

from vaekit.config import ImageSetName
from vaekit.images.sets import count

Arrays = dict[str, NDArray[Any]]


def shades(*numbers: int, size: tuple[int, ...] = (8, 8)) -> NDArray[np.uint8]:
    """Images [N, *size], each of one value."""
    shape = (len(numbers), *(1 for _ in size))
    return np.broadcast_to(np.array(numbers, np.uint8).reshape(shape), (len(numbers), *size)).copy()


def medmnist() -> Arrays:
    """As its files have them: three sides, labels [N, 1]."""
    sides = {"train": (0, 1, 2, 3, 4, 5), "val": (10, 11), "test": (20, 21, 22)}
    arrays: Arrays = {}
    for side, numbers in sides.items():
        arrays[f"{side}_images"] = shades(*numbers)
        arrays[f"{side}_labels"] = np.array(numbers)[:, None] % 2 + 3
    return arrays


def put_npz(root: Path, arrays: Arrays) -> Path:
    np.savez(root / "set.npz", **arrays)  # type: ignore[arg-type]
    return root / "set.npz"


def put_npy(root: Path, arrays: Arrays) -> Path:
    for name, array in arrays.items():
        np.save(root / f"{name}.npy", array)
    return root


def put_idx(root: Path, arrays: Arrays) -> Path:
    for name, array in arrays.items():
        kind, dimensions = ("images", array.ndim) if "images" in name else ("labels", 1)
        side = {"train": "train-", "val": "val-", "test": "t10k-"}.get(name.split("_")[0], "")
        content = idx(array if kind == "images" else array.reshape(-1).astype(np.uint8))
        (root / f"{side}{kind}-idx{dimensions}-ubyte").write_bytes(content)
    return root


@pytest.mark.parametrize(
    ("name", "put"), [("arrays", put_npz), ("arrays", put_npy), ("idx", put_idx)]
)
def test_the_three_sides_come_as_they_lie(
    name: ImageSetName, put: Callable[[Path, Arrays], Path], tmp_path: Path
) -> None:
    loaded = load(put(tmp_path, medmnist()), name, image_size=8)
    assert loaded.class_names == ("3", "4")
    assert loaded.validation is not None
    for image_set, side, numbers in (
        (loaded.train, "train", [0, 1, 2, 3, 4, 5]),
        (loaded.validation, "val", [10, 11]),
        (loaded.test, "test", [20, 21, 22]),
    ):
        assert values(image_set) == numbers
        assert image_set.labels is not None
        assert image_set.labels.tolist() == [number % 2 for number in numbers]
        assert image_set.files == tuple(f"{side}_images[{i}]" for i in range(len(numbers)))
    assert count(loaded).num_validation == 2


@pytest.mark.parametrize(
    ("name", "put"), [("arrays", put_npz), ("arrays", put_npy), ("idx", put_idx)]
)
@pytest.mark.parametrize("labelled", [True, False])
def test_images_without_a_test_side_are_split_by_seed(
    labelled: bool, name: ImageSetName, put: Callable[[Path, Arrays], Path], tmp_path: Path
) -> None:
    arrays: Arrays = {"images": shades(*range(40))}
    if labelled:
        arrays["labels"] = np.arange(40) // 20
    root = put(tmp_path, arrays)
    loaded = load(root, name, image_size=8)
    assert len(loaded.test.pixels) == 4
    assert sorted(values(loaded.train) + values(loaded.test)) == list(range(40))
    assert loaded.test.files == tuple(f"images[{number}]" for number in values(loaded.test))
    assert (loaded.test.labels is not None) == labelled
    assert loaded.class_names == (("0", "1") if labelled else ())
    assert load(root, name, image_size=8, seed=4).sha256() != loaded.sha256()


def test_one_npy_file_is_a_set_without_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "faces.npy", shades(*range(20)))
    loaded = load(tmp_path / "faces.npy", "arrays", image_size=8)
    assert sorted(values(loaded.train) + values(loaded.test)) == list(range(20))
    assert loaded.train.labels is None


def test_a_limit_of_arrays_in_order_of_their_classes_is_a_fair_choice(tmp_path: Path) -> None:
    arrays = {"train_images": shades(*range(40)), "train_labels": np.arange(40) // 20}
    arrays |= {"test_images": shades(1, 30), "test_labels": np.array([0, 1])}
    loaded = load(put_npz(tmp_path, arrays), "arrays", image_size=8, limit=10)
    assert loaded.train.labels is not None
    assert set(loaded.train.labels.tolist()) == {0, 1}
    assert loaded.train.files == tuple(f"train_images[{i}]" for i in values(loaded.train))


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((8, 8), (1, 8, 8)),
        ((8, 8, 1), (1, 8, 8)),
        ((8, 8, 3), (3, 8, 8)),
        ((8, 8, 4), (4, 8, 8)),
        ((3, 8, 8), (3, 8, 8)),
        ((1, 8, 8), (1, 8, 8)),
        ((12, 20), (1, 8, 8)),
        ((12, 20, 3), (3, 8, 8)),
    ],
    ids=str,
)
def test_every_usual_layout_of_images_is_taken(
    size: tuple[int, ...], shape: tuple[int, ...], tmp_path: Path
) -> None:
    loaded = load(
        put_npz(tmp_path, {"images": shades(*range(5), size=size)}), "arrays", image_size=8
    )
    assert loaded.shape == shape
    assert sorted(values(loaded.train) + values(loaded.test)) == list(range(5))
    remarks = ["images of 12x20 pixels are resized to 8x8"] if size[0] == 12 else []
    assert [remark.split(";")[0] for remark in loaded.reading.remarks] == remarks


@pytest.mark.parametrize(
    ("size", "hint"),
    [
        ((8, 8), "; --data.image_size 8 keeps them"),
        ((16, 1024), "; --data.image_size 16,1024 keeps them"),
        ((7, 16), ""),
        ((16, 1025), ""),
    ],
    ids=str,
)
def test_a_size_is_named_to_keep_only_where_it_may_be_given(
    size: tuple[int, int], hint: str, tmp_path: Path
) -> None:
    path = put_npz(tmp_path, {"images": shades(*range(5), size=size)})
    remarks = load(path, "arrays", image_size=28).reading.remarks
    said = f"images of {size[0]}x{size[1]} pixels are resized to 28x28"
    assert list(remarks) == [said + hint]


def test_colours_stay_where_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    loaded = load(put_npz(tmp_path, {"images": images}), "arrays", image_size=8)
    for image_set in (loaded.train, loaded.test):
        assert image_set.files is not None
        rows = [int(name.removeprefix("images[")[:-1]) for name in image_set.files]
        np.testing.assert_array_equal(image_set.pixels.transpose(0, 2, 3, 1), images[rows])


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array(["cat", "dog"] * 5), ("cat", "dog")),
        (np.array([1, 26] * 5, np.int16), ("1", "26")),
        (np.array([9, 10] * 5), ("9", "10")),
        (np.array([False, True] * 5), ("False", "True")),
    ],
    ids=str,
)
def test_labels_may_be_any_numbers_or_words(
    labels: NDArray[Any], names: tuple[str, ...], tmp_path: Path
) -> None:
    root = put_npz(tmp_path, {"images": shades(*range(10)), "labels": labels})
    loaded = load(root, "arrays", image_size=8)
    assert loaded.class_names == names
    assert loaded.train.labels is not None
    assert loaded.train.labels.tolist() == [number % 2 for number in values(loaded.train)]


def test_the_names_that_keras_gives_are_known(tmp_path: Path) -> None:
    arrays = {"x_train": shades(0, 1, 2), "y_train": np.array([0, 1, 0])}
    arrays |= {"x_test": shades(9), "y_test": np.array([1]), "comment": np.array(["mine"])}
    loaded = load(put_npz(tmp_path, arrays), "arrays", image_size=8)
    assert values(loaded.train) == [0, 1, 2]
    assert values(loaded.test) == [9]
    assert loaded.reading.deviations() == ["1 not used: arrays by other names (comment)"]


@pytest.mark.parametrize(
    ("values_of_files", "value_range", "settled"),
    [
        (np.array([0, 1, 0.2], np.float32), "auto", "0,1"),
        (np.array([0, 1023, 204], np.uint16), "auto", "0,1023"),
        (np.array([0, 255, 51], float), "auto", "0,255"),
        (np.array([-100, 100, -60], np.int16), "auto", "-100,100"),
        (np.array([0, 10, 2], np.int64), "0,10", "0,10"),
    ],
    ids=str,
)
def test_values_beyond_a_byte_are_scaled_by_a_range_that_is_recorded(
    values_of_files: NDArray[Any], value_range: str, settled: str, tmp_path: Path
) -> None:
    images = values_of_files[:, None, None] * np.ones((1, 8, 8), values_of_files.dtype)
    root = put_npz(tmp_path, {"train_images": images, "test_images": 2 * images[1:2]})
    loaded = load(root, "arrays", image_size=8, value_range=value_range)
    assert values(loaded.train) == [0, 255, 51]
    assert values(loaded.test) == [255]
    assert loaded.data.value_range == settled
    assert f"{settled} become black and white" in loaded.reading.remarks[0]
    assert loaded.reading.deviations() == [f"1 test_images with values beyond {settled}, clipped"]


def test_copies_within_arrays_go_to_one_side_and_are_counted(tmp_path: Path) -> None:
    root = put_npz(tmp_path, {"images": shades(*range(10), *range(10))})
    loaded = load(root, "arrays", image_size=8)
    assert not set(values(loaded.train)) & set(values(loaded.test))
    assert count(loaded).num_copies == 10


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this code ran",)


OTHER: dict[str, tuple[Arrays, str]] = {
    "nan": ({"images": np.full((4, 8, 8), np.nan)}, "images holds NaN or infinite values"),
    "bool": ({"images": np.zeros((4, 8, 8), bool)}, "images is bool, expected uint8"),
    "words": ({"images": np.full((4, 8, 8), "a")}, "images is <U1, expected uint8"),
    "flat": ({"images": np.zeros((4, 64), np.uint8)}, "has the shape [4, 64]"),
    "bands": ({"images": np.zeros((4, 9, 9, 7), np.uint8)}, "has the shape [4, 9, 9, 7]"),
    "none": ({"images": np.zeros((0, 8, 8), np.uint8)}, "has the shape [0, 8, 8]"),
    "one": ({"images": shades(1)}, "one image can't be split"),
    "equal": (
        {"images": np.full((20, 8, 8), 7, np.uint8)},
        "20 images can't be split into a training and a test set that share no equal",
    ),
    "names": ({"pictures": shades(1, 2)}, "pictures; expected an .npz file"),
    "test only": ({"test_images": shades(1, 2)}, "test_images; expected an .npz file"),
    "both": ({"images": shades(1), "test_images": shades(1)}, "expected an .npz file"),
    "twice": ({"x_train": shades(1), "train_images": shades(1)}, "name the same twice"),
    "fewer labels": ({"images": shades(1, 2), "labels": np.array([1])}, "one label for each of 2"),
    "many labels": (
        {"images": shades(1, 2), "labels": np.eye(2, dtype=int)},
        "labels has the shape",
    ),
    "float labels": ({"images": shades(1, 2), "labels": np.ones(2)}, "labels is float64, expected"),
    "half labelled": (
        {"train_images": shades(1, 2), "train_labels": np.ones(2, int), "test_images": shades(3)},
        "test without labels beside train with labels",
    ),
    "new class": (
        {
            "train_images": shades(1, 2),
            "train_labels": np.ones(2, int),
            "test_images": shades(3),
            "test_labels": np.array([7]),
        },
        "7 in test_labels is not among the classes of train_labels",
    ),
    "channels": (
        {"train_images": shades(1, 2), "test_images": shades(3, size=(8, 8, 3))},
        "1 in train_images, 3 in test_images channels",
    ),
}


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.injects(11)
def test_arrays_that_cannot_be_used_are_named(name: str, tmp_path: Path) -> None:
    arrays, words = OTHER[name]
    path = put_npz(tmp_path, arrays)
    line = fault(path, "arrays", image_size=8)
    assert line.startswith(f"--data.root {path}: ")
    assert words in line


@pytest.mark.parametrize("suffix", ["npz", "npy"])
@pytest.mark.injects(14)
def test_nothing_in_arrays_is_unpickled(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = np.array([Bomb(), Bomb()], object)
    path = tmp_path / f"set.{suffix}"
    if suffix == "npz":
        np.savez(path, images=objects)
    else:
        np.save(path, objects)
    assert "holds Python objects, which could run code" in fault(path, "arrays")
    assert "this code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["npz", "npy"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
@pytest.mark.injects(11)
def test_a_damaged_file_of_arrays_is_named(suffix: str, damage: str, tmp_path: Path) -> None:
    whole = put_npz(tmp_path, {"images": shades(1, 2)}) if suffix == "npz" else tmp_path / "a.npy"
    if suffix == "npy":
        np.save(whole, shades(1, 2))
    content = whole.read_bytes()
    whole.write_bytes({"truncated": content[:-60], "text": b"not arrays", "empty": b""}[damage])
    assert str(whole) in fault(whole, "arrays")


@pytest.mark.parametrize(
    "names",
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte", "t10k-images.idx3-ubyte"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"),
        (
            "emnist-letters-train-images-idx3-ubyte.gz",
            "emnist-letters-train-labels-idx1-ubyte.gz",
            "emnist-letters-test-images-idx3-ubyte.gz",
        ),
        ("Train_Images.idx3-ubyte", "Train_Labels.idx1-ubyte", "Test_Images.idx3-ubyte"),
        ("MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte",
         "MNIST/raw/t10k-images-idx3-ubyte"),
    ],
    ids=lambda names: names[0],
)  # fmt: skip
def test_idx_files_of_any_size_go_by_any_usual_name(names: tuple[str, ...], tmp_path: Path) -> None:
    arrays = medmnist()
    test_labels = names[2].replace("mages", "abels").replace("idx3", "idx1")
    for name, array in zip(
        (*names, test_labels),
        (
            shades(*range(6), size=(9, 9)),
            arrays["train_labels"].reshape(-1).astype(np.uint8),
            shades(20, 21, 22, size=(9, 9)),
            arrays["test_labels"].reshape(-1).astype(np.int32),
        ),
        strict=True,
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = idx(array)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    (tmp_path / "README.md").write_text("no IDX file")
    loaded = load(tmp_path, "idx", image_size=9)
    assert values(loaded.train) == [0, 1, 2, 3, 4, 5]
    assert values(loaded.test) == [20, 21, 22]
    assert loaded.test.labels is not None
    assert loaded.test.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-1], "of the 384 bytes that its header claims"),
        (lambda content: content + b"\0", "more than the 384 bytes"),
        (lambda content: content[:2] + b"\x0d" + content[3:], "no IDX file"),
        (lambda content: b"", "no IDX file"),
    ],
    ids=["truncated", "longer", "floats", "empty"],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.injects(11)
def test_a_damaged_idx_file_of_ones_own_is_never_to_be_deleted(
    damage: Callable[[bytes], bytes], words: str, suffix: str, tmp_path: Path
) -> None:
    content = damage(idx(shades(*range(6))))
    path = tmp_path / f"images-idx3-ubyte{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    line = fault(tmp_path, "idx", image_size=8)
    assert words in line
    assert str(tmp_path) in line
    assert "delete" not in line


def test_two_idx_files_for_one_purpose_are_named(tmp_path: Path) -> None:
    for name in ("letters-train-images-idx3-ubyte", "digits-train-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(idx(shades(1, 2)))
    line = fault(tmp_path, "idx")
    assert "digits-train-images-idx3-ubyte and letters-train-images-idx3-ubyte both hold" in line


@pytest.mark.usefixtures("no_network")
def test_own_idx_files_in_the_place_of_a_published_set_are_told_what_reads_them(
    tmp_path: Path,
) -> None:
    put_idx(tmp_path, medmnist())
    assert "--data.name idx" in fault(tmp_path, "mnist")
    assert not (tmp_path / "MNIST").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("set.npz", "--data.name arrays"),
        ("images.npy", "--data.name arrays"),
        ("table.csv", "--data.name arrays"),
        ("rows.parquet", "--data.name datasets"),
        ("images.zip", "unpack"),
        ("one.png", "the folder of an image"),
    ],
)
def test_a_file_in_the_place_of_a_folder_is_told_what_takes_it(
    name: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"whatever")
    line = fault(tmp_path / name)
    assert words in line
    assert "a file, expected a folder" in line


def test_a_folder_of_image_files_is_no_arrays(tmp_path: Path) -> None:
    write(tmp_path / "cats" / "1.png", flat(1))
    for name in ("arrays", "idx"):
        assert "expected" in fault(tmp_path, name)  # type: ignore[arg-type]
