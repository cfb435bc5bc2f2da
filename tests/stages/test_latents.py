"""Latents are the encoder's word on every image, and bound to its weights."""

import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from damage_helpers import snapshot
from image_helpers import as_prepared
from pyarrow import parquet
from rank_helpers import run_ranks

from vaekit.cli import main
from vaekit.config import SvmConfig
from vaekit.errors import UserError
from vaekit.images.image_set import Images, ImageSet
from vaekit.images.sets import load_images
from vaekit.models.gaussian import Posterior
from vaekit.models.vae import VAE
from vaekit.runs import index as index_module
from vaekit.runs import latent_parts
from vaekit.runs.folder import RunFolder
from vaekit.runs.index import index_row, read_index, write_index
from vaekit.runs.latents import read_part
from vaekit.runs.run import Run
from vaekit.runs.weights import write_weights
from vaekit.stages import latents as latents_module
from vaekit.stages.latents import extract_latents
from vaekit.stages.svm import fit_svm
from vaekit.storage.damage import Damaged
from vaekit.storage.files import file_sha256, read_json
from vaekit.storage.sealed import write_sealed

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(run: Path) -> RunFolder:
    return RunFolder(run)


def test_each_row_is_mean_and_log_variance_of_its_image(run: RunFolder) -> None:
    config, weights = run.require_config(), Run(run.path).weights
    images, latents = load_images(config.data, config.seed), Run(run.path).latents
    for pixels, labels, rows, row_labels in (
        (*images.train[:2], latents.train, latents.train_labels),
        (*images.test[:2], latents.test, latents.test_labels),
    ):
        mean, log_variance = weights.vae.enc(torch.from_numpy(pixels / np.float32(255)))
        expected = torch.cat([mean, log_variance], dim=1).numpy()
        np.testing.assert_allclose(rows, expected, atol=1e-5)
        assert rows.dtype == np.float32
        assert rows.shape == (len(pixels), 6)
        assert row_labels is not None
        assert labels is not None
        assert row_labels.tolist() == labels.tolist()
    assert latents.class_names == tuple("0123456789")
    assert latents.model_sha256 == Run(run.path).sha256("weights")


def test_the_index_says_which_row_is_which_file(folder_run: Path) -> None:
    """By its pixels: the order in the folder is not that of the rows."""
    run = Run(folder_run)
    rows = parquet.read_table(run.folder.latents / "index.parquet").to_pylist()
    assert list(rows[0]) == ["split", "row", "file", "label", "class_name"]
    for split, image_set in (("train", run.images.train), ("test", run.images.test)):
        of_split = [row for row in rows if row["split"] == split]
        assert [int(row["row"]) for row in of_split] == list(range(len(image_set.pixels)))
        for row, pixels in zip(of_split, image_set.pixels, strict=True):
            path = Path(run.data.root) / row["file"]
            np.testing.assert_array_equal(as_prepared([path], run.images.shape)[0], pixels)
            if run.images.class_names:
                assert path.is_relative_to(Path(run.data.root) / split / row["class_name"])
                assert run.images.class_names[int(row["label"])] == row["class_name"]
            else:
                assert row["label"] is row["class_name"] is None


def test_a_set_that_is_no_files_has_an_index_of_rows(run: RunFolder) -> None:
    index = Run(run.path).latents.rows
    assert [row.split for row in index] == ["train"] * 96 + ["test"] * 96
    assert all(row.file is None for row in index)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"file,label\n",
        b"split,row,file,label,class_name\ntrain,0\n",
        b"split,row,file,label,class_name\ntrain,first,,,\n",
        b"split,row,file,label,class_name\ntrain,0,\xff,,\n",
        b"split,row,file,label,class_name\n" + b"x" * 200_000 + b"\n",
        b"split,row,file,label,class_name\ntrain,0,,99999999999999999999,\n",
    ],
    ids=["empty", "columns", "short", "words", "bytes", "long", "beyond 64 bits"],
)
@pytest.mark.injects(14)
def test_a_forged_index_whose_hash_fits_is_damaged(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    path.write_bytes(content)
    with pytest.raises(Damaged):
        read_part(path, file_sha256(path))
    path = path.rename(tmp_path / "index.parquet")
    with pytest.raises(Damaged, match="no parquet file"):
        read_part(path, file_sha256(path))


def test_an_index_of_other_columns_or_rows_is_refused(run: RunFolder) -> None:
    index = run.latents / "index.parquet"
    whole = parquet.read_table(index)
    for other, words in (
        (whole.drop_columns(["label"]), "not as vaekit writes it"),
        (whole.slice(1), "not of the rows"),
        (whole.take([1, 0, *range(2, len(whole))]), "not of the rows"),
    ):
        parquet.write_table(other, index)
        facts = read_json(run.latents / "latents.json")
        facts["files"]["index.parquet"] = file_sha256(index)
        write_sealed(run.latents / "latents.json", facts)
        with pytest.raises(UserError, match=words):
            Run(run.path).latents


def test_an_index_of_many_groups_is_read_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "ROWS_OF_GROUP", 7)
    images = Images(
        ImageSet(
            np.zeros((20, 1, 8, 8), np.uint8), np.arange(20) % 2, tuple("abcdefghijklmnopqrst")
        ),
        ImageSet(np.zeros((9, 1, 8, 8), np.uint8), np.arange(9) % 2, ("\udcff", *"ABCDEFGH")),
        ("even", "odd"),
    )
    write_index(tmp_path / "index.parquet", images)
    index = read_index(tmp_path / "index.parquet")
    expected = [index_row(images, number) for number in range(29)]
    expected[20] = expected[20]._replace(file="\\udcff")
    assert len(index) == 29
    assert [*index] == expected == [index[number] for number in range(29)]
    assert [*index[5:23]] == expected[5:23]
    assert [*index[::-6]] == expected[::-6]
    assert index[-1] == expected[-1]
    assert index.is_of(20, 9)
    assert not index.is_of(19, 10)


def test_one_of_several_processes_makes_no_latents_for_itself(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run.latents)
    monkeypatch.setattr(latents_module, "start_ranks", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(UserError, match=rf"2 processes; launch `-m vaekit latents {run.path}`"):
        fit_svm(Run(run.path), SvmConfig())
    assert not run.latents.exists()


class Encoder:
    """Counts the batches that a run's images are encoded in, and may break off before one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_batches, self.breaks_at = 0, -1
        self._encode = VAE.encode
        monkeypatch.setattr(VAE, "encode", lambda *arguments: self.encode(*arguments))
        monkeypatch.setattr(latents_module, "batch_size_on", lambda _: 8)
        monkeypatch.setattr(latent_parts, "MOST_BATCHES", 3)

    def encode(self, vae: VAE, images: torch.Tensor) -> Posterior:
        if self.num_batches == self.breaks_at:
            raise KeyboardInterrupt
        self.num_batches += 1
        return self._encode(vae, images)

    def extract(self, run: RunFolder) -> int:
        """The number of batches that it takes."""
        self.num_batches = 0
        extract_latents(Run(run.path))
        return self.num_batches

    def break_off(self, run: RunFolder, batch: int) -> None:
        self.breaks_at = batch
        with pytest.raises(KeyboardInterrupt):
            self.extract(run)
        self.breaks_at = -1


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """Of 12 batches of each side, in 4 parts of 3."""
    return Encoder(monkeypatch)


@pytest.mark.parametrize(("batch", "left"), [(0, []), (7, [48]), (12, [0]), (23, [0, 24])], ids=str)
@pytest.mark.injects(2)
def test_an_encoding_that_was_broken_off_goes_on_to_the_same_bytes(
    run: RunFolder, encoder: Encoder, batch: int, left: list[int], capsys: Capture
) -> None:
    assert encoder.extract(run) == 24
    whole = snapshot(run.latents)
    encoder.break_off(run, batch)
    assert encoder.extract(run) == 24 - batch // 3 * 3
    assert snapshot(run.latents) == whole
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "still to be encoded" in line] == [
        f"vaekit: {run.latents}/{name}_latents.npy: {number} of 96 images are still to be encoded"
        for name, number in zip(("train", "test"), left, strict=False)
    ]


@pytest.mark.parametrize(
    ("num_images", "num_ranks", "sizes"),
    [
        (60_000, 1, [15_000] * 4),
        (60_000, 2, [15_000] * 4),
        (60_000, 3, [10_000] * 6),
        (499, 8, [499]),
        (64_001, 1, [16_000] * 4 + [1]),
        (200_000, 3, [16_000] * 12 + [8_000]),
        (200_000, 1, [16_000] * 12 + [8_000]),
    ],
)
def test_ranks_have_even_parts_and_large_sets_the_same_ones_for_all(
    num_images: int, num_ranks: int, sizes: list[int]
) -> None:
    parts = latent_parts.plan_parts(Path("latents.npy"), num_images, 500, num_ranks)
    assert [len(part.rows) for part in parts] == sizes
    batches = [batch for part in parts for batch in part.batches(500)]
    assert [batch.start for batch in batches] == list(range(0, num_images, 500))
    assert batches[-1].stop == num_images


@pytest.mark.parametrize("damage", ["cut", "flipped", "forged"])
@pytest.mark.injects(5)
def test_a_part_that_is_not_whole_is_encoded_again(
    run: RunFolder, encoder: Encoder, damage: str
) -> None:
    encoder.extract(run)
    whole = snapshot(run.latents)
    encoder.break_off(run, 9)
    path = sorted((run.latents / ".parts-train_latents.npy").iterdir())[1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes({"cut": content[:-9], "flipped": content, "forged": b""}[damage])
    assert encoder.extract(run) == 24 - 6
    assert snapshot(run.latents) == whole


@pytest.mark.injects(8)
def test_nothing_that_other_weights_encoded_is_taken_over(run: RunFolder, encoder: Encoder) -> None:
    encoder.break_off(run, 9)
    weights = Run(run.path).weights
    weights.vae.enc.mu.bias += 1
    write_weights(run, weights.vae, weights.class_names, weights.images_sha256)
    assert encoder.extract(run) == 24
    resumed = snapshot(run.latents)
    encoder.extract(run)
    assert snapshot(run.latents) == resumed


@pytest.mark.slow
def test_two_ranks_write_what_one_writes(run: RunFolder, tmp_path: Path) -> None:
    one = Run(run.path).latents
    shutil.rmtree(run.latents)
    ended = run_ranks(partial(main, ["latents", str(run.path)]), 2, tmp_path)
    assert ended.exit_codes == [0, 0], ended.errors
    two = Run(run.path).latents
    np.testing.assert_array_equal(two.train, one.train)
    np.testing.assert_array_equal(two.test, one.test)
    assert not list(run.latents.glob(".*"))
