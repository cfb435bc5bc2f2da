"""IDX sets: what torchvision reads, or one plain line for what can't be used."""

import gzip
import hashlib
import io
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from image_helpers import fault, flip_a_bit, idx, load

from vaekit.config import ImageSetName
from vaekit.images.idx import IDX_SETS
from vaekit.images.sets import IMAGE_SETS

IN_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}

TRAIN_IMAGES = "train-images-idx3-ubyte"


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
        real = IDX_SETS[name]
        folder = tmp_path / real.dataset / "raw"
        folder.mkdir(parents=True)
        for file_name, content in tiny_idx_files().items():
            (folder / file_name).write_bytes(content)
            (folder / f"{file_name}.gz").write_bytes(gzip.compress(content, mtime=0))
        sha256 = tuple(
            hashlib.sha256((folder / file_name).read_bytes()).hexdigest()
            for file_name in real.file_names
        )
        monkeypatch.setitem(IDX_SETS, name, real._replace(sha256=sha256))
        return folder

    return put


@pytest.mark.slow  # torchvision takes seconds to import
@pytest.mark.parametrize("name", IN_TORCHVISION)
def test_idx_sets_hold_what_torchvision_reads(
    name: ImageSetName, tmp_path: Path, put_idx_files: Callable[[ImageSetName], Path]
) -> None:
    from torchvision import datasets

    put_idx_files(name)
    ours = load(tmp_path, name)
    assert ours.shape == (1, 28, 28)
    for image_set, is_train in ((ours.train, True), (ours.test, False)):
        theirs = getattr(datasets, IN_TORCHVISION[name])(tmp_path, train=is_train)
        torch.from_numpy(image_set.pixels)  # without PyTorch's warning of read-only arrays
        np.testing.assert_array_equal(image_set.pixels[:, 0], theirs.data.numpy())
        assert image_set.labels is not None
        assert image_set.labels.dtype == np.int64
        np.testing.assert_array_equal(image_set.labels, theirs.targets.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_TORCHVISION)
def test_every_class_of_an_idx_set_has_its_name(name: ImageSetName) -> None:
    from torchvision import datasets

    classes = getattr(datasets, IN_TORCHVISION[name]).classes
    short_names = tuple(label.split(" - ")[0] for label in classes)
    assert IMAGE_SETS[name].class_names == short_names


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
@pytest.mark.injects(11)
def test_a_damaged_idx_file_is_named_with_what_it_has_and_what_to_do(
    name: ImageSetName,
    damage: Callable[[bytes], bytes],
    found: dict[str, str],
    tmp_path: Path,
    put_idx_files: Callable[[ImageSetName], Path],
) -> None:
    path = put_idx_files(name) / IDX_SETS[name].file_names[0]
    path.write_bytes(damage(path.read_bytes()))
    line = fault(tmp_path, name)
    assert str(path) in line
    assert found.get(name, "sha256") in line
    assert "expected" in line
    assert "move the file away so that it is downloaded again" in line
    assert "delete" not in line


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist"])
@pytest.mark.injects(20)
def test_a_missing_set_without_network_names_the_files_and_a_set_that_needs_none(
    name: ImageSetName, tmp_path: Path
) -> None:
    line = fault(tmp_path / "nowhere", name)
    for file_name in IDX_SETS[name].file_names:
        assert file_name in line
    assert str(tmp_path / "nowhere" / IDX_SETS[name].dataset / "raw") in line
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "kmnist"])
@pytest.mark.injects(20)
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
    known = f"torchvision.datasets.{IN_TORCHVISION[name]}"
    monkeypatch.setattr(f"{known}.resources", md5)
    monkeypatch.setattr(f"{known}.mirrors", ["http://dead/", "http://alive/"])
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
