"""A checkpoint is whole or not there, and the last two are kept."""

from pathlib import Path

import pytest
import torch

from vaekit.runs.checkpoints import load_checkpoint, load_newest_checkpoint, save_checkpoint
from vaekit.storage import tensors as tensor_files
from vaekit.storage.damage import Damaged
from vaekit.training.state import Checkpoint


def a_checkpoint(step: int) -> Checkpoint:
    tensors = {
        "weight": torch.full((4,), float(step)),
        "losses": torch.ones(3, 2, dtype=torch.float64),
    }
    metadata = {
        "mixed_precision": "no",
        "execution_path": "eager",
        "images_sha256": "0123",
        "config": {},
        "scaler": None,
        "metrics": [{"epoch": 1}],
        "seconds": 1.5,
    }
    return Checkpoint(step, tensors, metadata)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, a_checkpoint(9360))
    assert names(tmp_path) == ["step-00009360.safetensors"]
    loaded = load_checkpoint(tmp_path / "step-00009360.safetensors")
    assert loaded.step == 9360
    assert loaded.metadata == a_checkpoint(9360).metadata
    assert torch.equal(loaded.tensors["weight"], torch.full((4,), 9360.0))


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 100):
        save_checkpoint(tmp_path, a_checkpoint(step))
    assert names(tmp_path) == ["step-00000010.safetensors", "step-00000100.safetensors"]


@pytest.mark.injects(4)
def test_the_old_ones_stay_where_writing_the_new_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, a_checkpoint(step))

    def half_a_file(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files, "save_file", half_a_file)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, a_checkpoint(3))
    assert names(tmp_path) == ["step-00000001.safetensors", "step-00000002.safetensors"]
    newest = load_newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.step == 2


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("metadata", "metrics", "many"),
        ("metadata", "seconds", None),
        ("metadata", "config", []),
        ("metadata", "execution_path", 3),
        ("metadata", "scaler", 1),
        ("tensors", "losses", torch.zeros(1)),
    ],
)
@pytest.mark.injects(14)
def test_a_forged_one_with_a_hash_that_fits_is_refused_too(
    tmp_path: Path, part: str, name: str, value: object
) -> None:
    whole = a_checkpoint(1)
    getattr(whole, part)[name] = value
    save_checkpoint(tmp_path, whole)
    with pytest.raises(Damaged, match="not as vaekit writes it"):
        load_checkpoint(tmp_path / "step-00000001.safetensors")
