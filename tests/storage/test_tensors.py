"""A tensor file comes back as it was, or is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vaekit.storage.arrays import read_npy
from vaekit.storage.damage import Damaged
from vaekit.storage.tensors import read_tensors, write_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "step": torch.tensor(7), "empty": torch.ones(0)}


def write(path: Path) -> None:
    write_tensors(path, TENSORS, {"names": ["é", "b"]}, format_name="test", version=1)


def read(path: Path, version: int = 1) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    return read_tensors(path, format_name="test", version=version)


def test_tensors_and_facts_come_back_and_others_can_read_the_file(tmp_path: Path) -> None:
    write(tmp_path / "t.safetensors")
    tensors, facts = read(tmp_path / "t.safetensors")
    assert facts == {"names": ["é", "b"]}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in load_file(tmp_path / "t.safetensors").items():
        assert torch.equal(tensor, TENSORS[name])
        assert torch.equal(tensors[name], TENSORS[name])


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write(tmp_path / "t")
    (tmp_path / "plain").touch()
    assert (tmp_path / "t").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_tensors_of_any_type_are_hashed_and_come_back(tmp_path: Path) -> None:
    tensors = {
        str(dtype): torch.ones(2, dtype=dtype)
        for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.bool, torch.complex64)
    }
    write_tensors(tmp_path / "t", tensors, {}, format_name="test", version=1)
    for name, tensor in read(tmp_path / "t")[0].items():
        assert tensor.dtype == tensors[name].dtype


def test_npy_reads_what_numpy_writes(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    read = read_npy(tmp_path / "a.npy", np.float32, 2)
    np.testing.assert_array_equal(read, array)
    assert type(read) is np.ndarray


@pytest.mark.injects(14)
def test_a_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write(path)
    whole = path.read_bytes()
    for offset in range(len(whole)):
        if whole[offset] == ord(" "):
            continue  # the header is padded with spaces
        content = bytearray(whole)
        content[offset] ^= 1
        path.write_bytes(content)
        with pytest.raises(Damaged):
            read(path)


@pytest.mark.injects(14)
def test_another_version_or_a_strangers_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t")
    with pytest.raises(Damaged, match=r"format version 1, expected 2$"):
        read(tmp_path / "t", version=2)
    save_file({"a": torch.ones(1)}, tmp_path / "s")
    with pytest.raises(Damaged, match="format None, expected test"):
        read(tmp_path / "s")
