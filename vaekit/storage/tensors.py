"""Tensors on disk: safetensors with a format, a version and a hash."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaekit.storage.damage import Damaged, require_version
from vaekit.storage.files import atomic_path, require_file

METADATA_KEY = "vaekit"  # one key: with more, safetensors orders them at random
SYSTEM_ERROR = re.compile(r"os error (\d+)")  # as Rust's standard library writes it


class TensorFile(NamedTuple):
    """The tensors of a file, on the CPU, and what was recorded beside them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    *,
    format_name: str,
    version: int,
) -> None:
    """Write tensors with `metadata` (JSON values); the same arguments give the same bytes."""
    contiguous = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    recorded = {"format": format_name, "format_version": version, **metadata}
    recorded["sha256"] = _sha256(contiguous, recorded)
    with atomic_path(path) as temporary:
        try:
            save_file(contiguous, temporary, {METADATA_KEY: json.dumps(recorded)})
        except SafetensorError as error:
            found = SYSTEM_ERROR.search(str(error))
            if found is None:
                raise
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def read_tensors(path: Path, *, format_name: str, version: int) -> TensorFile:
    """All tensors of a file that `write_tensors` wrote.

    Raises `Damaged` where it is not whole, or of another format or version.
    """
    require_file(path)
    path.open("rb").close()  # safetensors' own OSError has no errno and no file name
    try:
        with safe_open(path, framework="pt") as file:
            recorded = file.metadata() or {}
            # As copies: of a memory map, pages can be gone once another process prunes the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    except SafetensorError as error:
        raise Damaged(f"not a whole safetensors file ({error})") from error
    try:
        metadata = json.loads(recorded.get(METADATA_KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise Damaged("damaged, its metadata is no JSON") from error
    if not isinstance(metadata, dict):
        raise Damaged("damaged, its metadata is no object")
    if (found := metadata.get("format")) != format_name:
        raise Damaged(f"format {found!s:.100}, expected {format_name}")
    require_version(metadata.get("format_version"), version)
    if metadata.pop("sha256", None) != _sha256(tensors, metadata):
        raise Damaged("damaged, its content does not match its sha256")
    del metadata["format"], metadata["format_version"]
    return TensorFile(tensors, metadata)


def difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """The first tensor in which two states differ by name, shape or type."""
    for name in [*expected, *found]:
        kinds = [
            f"{state[name].dtype} {tuple(state[name].shape)}" if name in state else "absent"
            for state in (found, expected)
        ]
        if kinds[0] != kinds[1]:
            return f"{name} is {kinds[0]}, expected {kinds[1]}"
    return None


def _sha256(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Over metadata, names, types, shapes and values; safetensors itself has no such check."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes, since NumPy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
