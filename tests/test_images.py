"""Image sets: right pixels, right labels, and one plain line for what can't be used."""

import gzip
import hashlib
import io
import os
import struct
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate
from torchvision.datasets import KMNIST, MNIST, FashionMNIST

from vaekit import images
from vaekit.config import DataConfig, ImageSetName
from vaekit.errors import UserError
from vaekit.images import Images, ImageSet, load_images, prepare_files

ROOT = Path(__file__).parent.parent
TORCHVISION = {"mnist": MNIST, "fashion-mnist": FashionMNIST, "kmnist": KMNIST}
TRAIN_IMAGES = "train-images-idx3-ubyte"


def load(root: Path, name: ImageSetName = "folder", seed: int = 0, **settings: Any) -> Images:
    return load_images(DataConfig(name=name, root=str(root), **settings), seed)


def fault(root: Path, name: ImageSetName = "folder", **settings: Any) -> str:
    """The one line that loading gives."""
    with pytest.raises(UserError) as error:
        load(root, name, **settings)
    line = str(error.value)
    assert "\n" not in line
    return line


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def idx(array: NDArray[np.uint8]) -> bytes:
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return header + array.tobytes()


def tiny_idx_files() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    files = {}
    for split, num in (("train", 40), ("t10k", 20)):
        pixels = rng.integers(0, 256, (num, 28, 28), dtype=np.uint8)
        labels = np.arange(num, dtype=np.uint8) % 10
        files[f"{split}-images-idx3-ubyte"] = idx(pixels)
        files[f"{split}-labels-idx1-ubyte"] = idx(labels)
    return files


@pytest.fixture
def put_idx_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[ImageSetName], Path]:
    """Small IDX files that stand for the real ones: their hashes are the expected ones."""

    def put(name: ImageSetName) -> Path:
        real = images._IDX_SETS[name]
        folder = tmp_path / real.dataset / "raw"
        folder.mkdir(parents=True)
        for file_name, content in tiny_idx_files().items():
            (folder / file_name).write_bytes(content)
            (folder / f"{file_name}.gz").write_bytes(gzip.compress(content, mtime=0))
        sha256 = tuple(
            hashlib.sha256((folder / file_name).read_bytes()).hexdigest()
            for file_name in real.file_names
        )
        monkeypatch.setitem(images._IDX_SETS, name, real._replace(sha256=sha256))
        return folder

    return put


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist"])
def test_idx_sets_hold_what_torchvision_reads(
    name: ImageSetName, tmp_path: Path, put_idx_files: Callable[[ImageSetName], Path]
) -> None:
    put_idx_files(name)
    ours = load(tmp_path, name)
    assert ours.shape == (1, 28, 28)
    for image_set, is_train in ((ours.train, True), (ours.test, False)):
        theirs = TORCHVISION[name](tmp_path, train=is_train)
        torch.from_numpy(image_set.pixels)  # without PyTorch's warning of read-only arrays
        np.testing.assert_array_equal(image_set.pixels[:, 0], theirs.data.numpy())
        assert image_set.labels is not None
        assert image_set.labels.dtype == np.int64
        np.testing.assert_array_equal(image_set.labels, theirs.targets.numpy())


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist"])
def test_every_class_of_an_idx_set_has_its_name(name: ImageSetName) -> None:
    short_names = tuple(label.split(" - ")[0] for label in TORCHVISION[name].classes)
    assert images._IDX_SETS[name].class_names == short_names


def test_real_mnist_has_its_published_statistics() -> None:
    root = Path(os.environ.get("VAEKIT_MNIST_ROOT", ROOT / "data"))
    if not (root / "MNIST" / "raw" / TRAIN_IMAGES).is_file():
        pytest.skip("no real MNIST: set VAEKIT_MNIST_ROOT to the folder that holds MNIST/raw")
    mnist = load(root, "mnist")
    assert mnist.train.pixels.shape == (60_000, 1, 28, 28)
    assert mnist.test.pixels.shape == (10_000, 1, 28, 28)
    assert mnist.train.labels is not None
    assert mnist.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.train.pixels.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert mnist.train.pixels.std() / 255 == pytest.approx(0.3081, abs=5e-5)


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("name", ["mnist", "kmnist"])
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda content: content[:1000], {"mnist": "1000 bytes, expected 31376"}),
        (lambda content: b"", {"mnist": "0 bytes, expected an IDX file"}),
        (lambda content: b"<!DOCTYPE html><html></html>", {"mnist": "begins with 3c21444f"}),
        (lambda content: idx(np.zeros((40, 32, 32), np.uint8)), {"mnist": "size [32, 32]"}),
        (flip_a_bit, {"mnist": "sha256"}),
    ],
    ids=["truncated", "empty", "html", "other-size", "bit-flipped"],
)
def test_a_damaged_idx_file_is_named_with_what_it_has_and_what_to_do(
    name: ImageSetName,
    damage: Callable[[bytes], bytes],
    found: dict[str, str],
    tmp_path: Path,
    put_idx_files: Callable[[ImageSetName], Path],
) -> None:
    path = put_idx_files(name) / images._IDX_SETS[name].file_names[0]
    path.write_bytes(damage(path.read_bytes()))
    line = fault(tmp_path, name)
    assert str(path) in line
    assert found.get(name, "sha256") in line
    assert "expected" in line
    assert "delete it so that it is downloaded again" in line


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist"])
def test_a_missing_set_without_network_names_the_files_and_a_set_that_needs_none(
    name: ImageSetName, tmp_path: Path
) -> None:
    line = fault(tmp_path / "nowhere", name)
    for file_name in images._IDX_SETS[name].file_names:
        assert file_name in line
    assert str(tmp_path / "nowhere" / images._IDX_SETS[name].dataset / "raw") in line
    assert "--data.name digits" in line


@pytest.mark.usefixtures("no_network")
def test_a_set_that_lacks_one_file_names_that_one(
    tmp_path: Path, put_idx_files: Callable[[ImageSetName], Path]
) -> None:
    folder = put_idx_files("mnist")
    for missing in folder.glob("t10k-labels*"):
        missing.unlink()
    line = fault(tmp_path, "mnist")
    assert "1 of the 4 files expected are missing (t10k-labels-idx1-ubyte)" in line


@pytest.mark.parametrize("name", ["mnist", "kmnist"])
def test_only_missing_files_are_downloaded_and_a_dead_mirror_is_passed_over(
    name: ImageSetName,
    tmp_path: Path,
    put_idx_files: Callable[[ImageSetName], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = put_idx_files(name)
    whole = load(tmp_path, name).sha256()
    archives = {path.name: path.read_bytes() for path in folder.glob("*.gz")}
    for missing in folder.glob("train-labels*" if name == "kmnist" else "*.gz"):
        missing.unlink()
    if name == "mnist":
        (folder / "train-labels-idx1-ubyte").unlink()
        (folder / "train-labels-idx1-ubyte.gz").write_bytes(b"half of an earlier download")
    md5 = [(file_name, hashlib.md5(content).hexdigest()) for file_name, content in archives.items()]
    monkeypatch.setattr(TORCHVISION[name], "resources", md5)
    monkeypatch.setattr(TORCHVISION[name], "mirrors", ["http://dead/", "http://alive/"])
    asked = []

    def serve(request: urllib.request.Request) -> io.BytesIO:
        if request.host == "dead":
            raise urllib.error.URLError("no such host")
        file_name = request.full_url.rsplit("/", 1)[1]
        asked.append(file_name)
        response: Any = io.BytesIO(archives[file_name])
        response.url, response.length = request.full_url, len(archives[file_name])
        return response

    monkeypatch.setattr(urllib.request, "urlopen", serve)
    assert load(tmp_path, name).sha256() == whole
    assert set(asked) == {"train-labels-idx1-ubyte.gz"}


def test_idx_images_are_not_resized(tmp_path: Path) -> None:
    line = fault(tmp_path, "mnist", image_size=32)
    assert "--data.image_size 32" in line
    assert "28x28" in line


def test_digits_at_their_own_size_are_those_of_scikit_learn(tmp_path: Path) -> None:
    digits = load(tmp_path, "digits", image_size=8)
    theirs = load_digits()
    expected = {
        (np.round(image * 255 / 16).astype(np.uint8).tobytes(), label)
        for image, label in zip(theirs.images, theirs.target.tolist(), strict=True)
    }
    ours = set()
    for pixels, labels in (digits.train, digits.test):
        assert labels is not None
        ours |= {(p.tobytes(), label) for p, label in zip(pixels, labels.tolist(), strict=True)}
    assert ours == expected
    assert len(digits.train.pixels) + len(digits.test.pixels) == len(theirs.images)
    assert digits.class_names == tuple("0123456789")


def test_digits_are_split_in_proportion_and_the_same_for_every_seed(tmp_path: Path) -> None:
    digits = load(tmp_path, "digits", seed=0)
    assert digits.shape == (1, 28, 28)
    assert len(digits.test.pixels) == 359  # a fifth of 1797
    assert digits.train.labels is not None
    assert digits.test.labels is not None
    counts = np.bincount(digits.test.labels), np.bincount(digits.train.labels)
    assert np.abs(counts[0] - 0.2 * (counts[0] + counts[1])).max() <= 1
    assert load(tmp_path, "digits", seed=1).sha256() == digits.sha256()


def flat(value: int, size: int = 8) -> NDArray[np.uint8]:
    return np.full((size, size), value, np.uint8)


def write(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def values(image_set: ImageSet) -> list[int]:
    """The value of each flat image."""
    return image_set.pixels[:, 0, 0, 0].tolist()


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Cats are darker than 100, dogs are not; the tens say train or test."""
    root = tmp_path / "pets"
    for i in range(6):
        write(root / "train" / "cat" / f"{i}.png", flat(i))
        write(root / "train" / "dog" / "more" / f"{i}.PNG", flat(100 + i))
    for i in range(3):
        write(root / "test" / "cat" / f"{i}.bmp", flat(10 + i))
        write(root / "test" / "dog" / f"{i}.tiff", flat(110 + i))
    return root


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


def test_hidden_files_and_other_files_are_ignored(pets: Path) -> None:
    before = load(pets, image_size=8)
    write(pets / "train" / "cat" / ".hidden.png", flat(50))
    write(pets / "train" / "cat" / ".thumbnails" / "1.png", flat(50))
    (pets / "train" / "cat" / "notes.txt").write_text("no image")
    (pets / "README.md").write_text("no image")
    assert load(pets, image_size=8).sha256() == before.sha256()


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


def test_images_without_classes_need_no_labels(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / "train" / f"{i}.png", flat(i))
    write(tmp_path / "test" / "0.png", flat(9))
    loaded = load(tmp_path, image_size=8)
    assert sorted(values(loaded.train)) == [0, 1, 2]
    assert values(loaded.test) == [9]
    assert loaded.train.labels is None
    assert loaded.class_names == ()


def two_pixel_palette(transparency: int | None) -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


GREY, RGB = Image.new("L", (8, 8), 70), Image.new("RGB", (8, 8), (200, 10, 20))
GREY_ALPHA = Image.new("LA", (8, 8), (70, 128))
RGBA = Image.new("RGBA", (8, 8), (200, 10, 20, 128))


@pytest.mark.parametrize(
    ("files", "channels"),
    [
        ([GREY, Image.new("1", (8, 8), 1)], 1),
        ([GREY, GREY_ALPHA], 2),
        ([GREY, RGB], 3),
        ([two_pixel_palette(None), GREY], 3),
        ([two_pixel_palette(0), RGB], 4),
        ([GREY_ALPHA, RGB], 4),
        ([RGBA, GREY], 4),
    ],
    ids=lambda value: "+".join(i.mode for i in value) if isinstance(value, list) else str(value),
)
def test_the_channels_hold_every_file_of_a_mixed_set(
    files: list[Image.Image], channels: int, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i, image in enumerate(files):
            image.save(tmp_path / split / f"{i}.png")
    loaded = load(tmp_path, image_size=8)
    assert loaded.shape == (channels, 8, 8)
    colours = {
        "L": (70, 70, 70, 255),
        "1": (255, 255, 255, 255),
        "LA": (70, 70, 70, 128),
        "RGB": (200, 10, 20, 255),
        "P": (200, 10, 20, 255),
        "RGBA": (200, 10, 20, 128),
    }
    bands = {1: (0,), 2: (0, 3), 3: (0, 1, 2), 4: (0, 1, 2, 3)}[channels]
    expected = {tuple(colours[image.mode][band] for band in bands) for image in files}
    assert {tuple(pixels[:, 4, 4].tolist()) for pixels in loaded.train.pixels} == expected


def test_a_cmyk_photo_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, quality=95)
    red = prepare_files([path], (3, 8, 8))[0, :, 4, 4].astype(int)
    assert red[0] > 240
    assert red[1:].max() < 15


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_greys_are_scaled_to_8_bits(suffix: str, tmp_path: Path) -> None:
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    path = write(tmp_path / f"deep.{suffix}", deep)
    expected = np.round(deep / 65535 * 255)
    np.testing.assert_array_equal(prepare_files([path], (1, 8, 8))[0, 0], expected)


def test_images_are_turned_as_their_camera_said(tmp_path: Path) -> None:
    upright = np.zeros((8, 8), np.uint8)
    upright[0, :] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = write(tmp_path / "turned.png", np.rot90(upright).copy(), exif=exif)
    np.testing.assert_array_equal(prepare_files([path], (1, 8, 8))[0, 0], upright)


def test_resizing_is_bilinear_with_antialiasing_over_the_whole_image(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    path = write(tmp_path / "wide.png", wide)
    pixels = torch.from_numpy(wide).permute(2, 0, 1)[None].double()
    expected = interpolate(pixels, (28, 28), mode="bilinear", antialias=True)[0].numpy()
    assert np.abs(prepare_files([path], (3, 28, 28))[0] - expected).max() <= 1


def test_files_for_a_model_are_prepared_as_those_of_a_folder(pets: Path) -> None:
    loaded = load(pets, image_size=12)
    paths = sorted((pets / "test").rglob("*.*"))
    prepared = prepare_files(paths, loaded.shape)
    assert {p.tobytes() for p in prepared} == {p.tobytes() for p in loaded.test.pixels}
    assert prepare_files(paths, (3, 20, 20)).shape == (6, 3, 20, 20)
    assert prepare_files([], (1, 8, 8)).shape == (0, 1, 8, 8)


def test_files_for_a_model_that_cannot_be_read_are_named(pets: Path) -> None:
    good = pets / "test" / "cat" / "0.bmp"
    with pytest.raises(UserError, match=r"missing\.png, .*README.*no image"):
        prepare_files([good, pets / "missing.png", ROOT / "README.md"], (1, 8, 8))


@pytest.fixture
def pets_with_damage(pets: Path) -> Path:
    """A truncated RGBA image, a text, a dangling link: three that can't be read."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    truncated = write(pets / "train" / "cat" / "truncated.png", noise)
    truncated.write_bytes(truncated.read_bytes()[:2000])
    (pets / "train" / "dog" / "text.jpg").write_text("no image")
    (pets / "test" / "dog" / "dangling.png").symlink_to("nothing")
    return pets


def test_all_unreadable_images_are_listed_in_one_line(pets_with_damage: Path) -> None:
    line = fault(pets_with_damage)
    for name in ("train/cat/truncated.png", "train/dog/text.jpg", "test/dog/dangling.png"):
        assert name in line
    assert "--data.skip_unreadable" in line


def test_a_long_list_of_unreadable_images_is_cut_and_counted(pets: Path) -> None:
    for i in range(9):
        (pets / "train" / "cat" / f"bad{i}.png").write_bytes(b"")
    line = fault(pets)
    assert "bad4.png" in line
    assert "bad5.png" not in line
    assert "9 in all" in line


def test_unreadable_images_are_left_out_when_asked(
    pets_with_damage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in ("decoded", "from the cache"):
        loaded = load(pets_with_damage, image_size=8, skip_unreadable=True)
        assert loaded.shape == (1, 8, 8)  # the truncated file has no say
        assert sorted(values(loaded.train)) == [0, 1, 2, 3, 4, 5, 100, 101, 102, 103, 104, 105]
        assert loaded.train.labels is not None
        assert loaded.train.labels.tolist() == [int(value >= 100) for value in values(loaded.train)]
        assert len(loaded.test.pixels) == 6
        assert "train/cat/truncated.png" in capsys.readouterr().err
    fault(pets_with_damage, image_size=8)


def test_a_set_with_nothing_readable_is_refused_even_when_skipping(tmp_path: Path) -> None:
    for name in ("train/a.png", "train/b.png", "test/a.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("no image")
    assert "none of the train images can be read" in fault(tmp_path, skip_unreadable=True)


@pytest.mark.filterwarnings("default")  # as outside of tests
@pytest.mark.parametrize("size", [10, 13], ids=["Pillow warns", "Pillow refuses"])
def test_an_absurdly_large_image_counts_as_unreadable(
    size: int, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pets / "train" / "cat" / "bomb.png", flat(0, size))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70)  # all others have 64
    assert "can't read train/cat/bomb.png;" in fault(pets)


def empty(root: Path) -> None:
    root.mkdir()


def no_test_folder(root: Path) -> None:
    write(root / "train" / "cat" / "0.png", flat(0))


def empty_class(root: Path) -> None:
    write(root / "cat" / "0.png", flat(0))
    (root / "dog").mkdir()


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
        (empty_class, "{root}/dog: no images in this class"),
        (loose_beside_classes, "loose.png beside class folders"),
        (new_class_in_test, "{root}/test: bird not among the classes of {root}/train"),
        (labels_in_train_only, "one of train and test has class folders"),
        (one_image, "one image can't be split"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_folder_that_cannot_be_used_says_why(
    make: Callable[[Path], None], expected: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    make(root)
    assert expected.format(root=root) in fault(root)


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(images, "_prepare", refuse)


def cache_files(root: Path) -> list[Path]:
    return sorted(path for path in (root / ".vaekit-cache").rglob("*") if path.is_file())


def test_images_are_decoded_once_and_then_mapped_from_the_cache(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load(pets, image_size=8)
    assert "decoding 18 images" in capsys.readouterr().err
    forbid_decoding(monkeypatch)
    second = load(pets, image_size=8)
    assert capsys.readouterr().err == ""
    for loaded in (first, second):
        assert isinstance(loaded.train.pixels, np.memmap)
    assert second.sha256() == first.sha256()
    assert second.class_names == first.class_names


def test_writing_to_loaded_images_does_not_reach_the_cache(pets: Path) -> None:
    whole = load(pets, image_size=8).sha256()
    loaded = load(pets, image_size=8)
    loaded.train.pixels[:] = 99
    assert loaded.sha256() != whole
    assert load(pets, image_size=8).sha256() == whole


def test_a_changed_file_or_setting_is_decoded_anew(pets: Path) -> None:
    load(pets, image_size=8)
    write(pets / "test" / "cat" / "0.bmp", flat(77))  # as long as before, but newer
    assert 77 in values(load(pets, image_size=8).test)
    write(pets / "train" / "cat" / "new.png", flat(78))
    assert 78 in values(load(pets, image_size=8).train)
    assert load(pets, image_size=9).shape == (1, 9, 9)


@pytest.mark.parametrize(
    "name",
    ["train_pixels.npy", "train_labels.npy", "test_pixels.npy", "test_labels.npy", "meta.json"],
)
@pytest.mark.parametrize("damage", [lambda content: content[:100], flip_a_bit, None])
def test_a_damaged_cache_is_made_again(
    name: str, damage: Callable[[bytes], bytes] | None, pets: Path
) -> None:
    whole = load(pets, image_size=8).sha256()
    (path,) = (path for path in cache_files(pets) if path.name == name)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    assert load(pets, image_size=8).sha256() == whole
    assert path.exists()


def test_a_run_killed_while_decoding_leaves_no_cache(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(images, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            load(pets, image_size=8)
    assert cache_files(pets) == []
    assert len(load(pets, image_size=8).train.pixels) == 12


def test_of_two_runs_that_decode_at_once_both_get_the_images(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = images._decode_listing
    others = []

    def decode_while_another_run_does(*arguments: Any, **settings: Any) -> Any:
        monkeypatch.setattr(images, "_decode_listing", decode)
        others.append(load(pets, image_size=8))
        return decode(*arguments, **settings)

    monkeypatch.setattr(images, "_decode_listing", decode_while_another_run_does)
    mine = load(pets, image_size=8)
    assert mine.sha256() == others[0].sha256()
    assert len({path.parent for path in cache_files(pets)}) == 1


def test_a_folder_that_cannot_be_written_is_decoded_into_memory(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pets / ".vaekit-cache").write_text("in the way")
    in_memory = load(pets, image_size=8)
    assert "only in memory" in capsys.readouterr().err
    (pets / ".vaekit-cache").unlink()
    assert load(pets, image_size=8).sha256() == in_memory.sha256()


def test_held_out_images_come_from_the_training_set_in_proportion(tmp_path: Path) -> None:
    whole = load(tmp_path, "digits", image_size=8)
    held = load(tmp_path, "digits", image_size=8, holdout=300, seed=5)
    assert len(held.test.pixels) == 300
    assert held.train.labels is not None
    assert held.test.labels is not None
    counts = np.bincount(held.test.labels), np.bincount(held.train.labels)
    share = 300 / len(whole.train.pixels)
    assert np.abs(counts[0] - share * (counts[0] + counts[1])).max() <= 1

    def rows(*sets: ImageSet) -> list[bytes]:
        return sorted(p.tobytes() for image_set in sets for p in image_set.pixels)

    assert rows(held.train, held.test) == rows(whole.train)
    again = load(tmp_path, "digits", image_size=8, holdout=300, seed=6)
    assert again.sha256() == held.sha256()


def test_images_without_labels_can_be_held_out(tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / "train" / f"{i}.png", flat(i))
    write(tmp_path / "test" / "0.png", flat(99))
    held = load(tmp_path, image_size=8, holdout=5)
    assert sorted(values(held.train) + values(held.test)) == list(range(20))
    assert len(held.test.pixels) == 5
    assert held.test.labels is None


def test_something_must_be_left_to_train_on(tmp_path: Path) -> None:
    load(tmp_path, "digits", image_size=8, holdout=1437)
    line = fault(tmp_path, "digits", image_size=8, holdout=1438)
    assert "--data.holdout 1438" in line
    assert "at most 1437" in line


def test_a_limit_keeps_the_first_images_of_both_sets_and_comes_last(tmp_path: Path) -> None:
    held = load(tmp_path, "digits", image_size=8, holdout=300)
    limited = load(tmp_path, "digits", image_size=8, holdout=300, limit=40)
    for few, all_of_them in ((limited.train, held.train), (limited.test, held.test)):
        assert few.labels is not None
        assert all_of_them.labels is not None
        np.testing.assert_array_equal(few.pixels, all_of_them.pixels[:40])
        np.testing.assert_array_equal(few.labels, all_of_them.labels[:40])


def test_the_hash_tells_pixels_labels_order_and_sets_apart() -> None:
    pixels = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 1, 8, 8)
    labels = np.array([0, 1])
    train, test = ImageSet(pixels, labels), ImageSet(pixels[:1], labels[:1])
    changed = pixels.copy()
    changed[1, 0, 7, 7] ^= 1
    variants = [
        Images(train, test, ("a", "b")),
        Images(test, train, ("a", "b")),
        Images(ImageSet(changed, labels), test, ("a", "b")),
        Images(ImageSet(pixels, labels[::-1]), test, ("a", "b")),
        Images(ImageSet(pixels[::-1], labels), test, ("a", "b")),
        Images(ImageSet(pixels, None), ImageSet(pixels[:1], None), ()),
    ]
    assert len({variant.sha256() for variant in variants}) == len(variants)
    copied = Images(ImageSet(pixels.copy(), labels.copy()), test, ("a", "b"))
    assert copied.sha256() == variants[0].sha256()
