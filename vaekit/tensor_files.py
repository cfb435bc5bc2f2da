"""Tensors on disk: safetensors with a format, a version and a hash, and plain .npy arrays."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaekit.errors import UserError
from vaekit.files import atomic_path

METADATA_KEY = "vaekit"  # one key: with more, safetensors orders them at random


class TensorFile(NamedTuple):
    """The tensors of a file, on the CPU, and what was recorded beside them."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    *,
    format_name: str,
    version: int,
) -> None:
    """Write tensors with `facts` (JSON values); the same arguments give the same bytes."""
    contiguous = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    recorded = {"format": format_name, "format_version": version, **facts}
    recorded["sha256"] = _sha256(contiguous, recorded)
    with atomic_path(path) as temporary:
        save_file(contiguous, temporary, {METADATA_KEY: json.dumps(recorded)})


def read_tensors(path: Path, *, format_name: str, version: int, remedy: str) -> TensorFile:
    """All tensors of a file that `write_tensors` wrote.

    Raises `UserError`, ending in `remedy`, where it is damaged or of another format or version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); {remedy}") from error
    try:
        facts = json.loads(metadata.get(METADATA_KEY, "{}"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: damaged, its metadata is no JSON; {remedy}") from error
    found = facts.get("format"), facts.get("format_version")
    if found != (format_name, version):
        raise UserError(
            f"{path}: format {found[0]} version {found[1]}, expected {format_name} "
            f"version {version}; {remedy}"
        )
    if facts.pop("sha256", None) != _sha256(tensors, facts):
        raise UserError(f"{path}: damaged, its content does not match its sha256; {remedy}")
    del facts["format"], facts["format_version"]
    return TensorFile(tensors, facts)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as a .npy file."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _sha256(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Over facts, names, types, shapes and values; safetensors itself has no such check."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).numpy().data)
    return digest.hexdigest()
