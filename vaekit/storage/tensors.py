"""Tensors on disk: safetensors with a format, a version and a hash, and plain .npy arrays."""

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaekit.errors import UserError
from vaekit.storage.files import atomic_path, require_file, write_bytes

METADATA_KEY = "vaekit"  # one key: with more, safetensors orders them at random
SYSTEM_ERROR = re.compile(r"os error (\d+)")  # as Rust's standard library writes it


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
        try:
            save_file(contiguous, temporary, {METADATA_KEY: json.dumps(recorded)})
        except SafetensorError as error:
            found = SYSTEM_ERROR.search(str(error))
            if found is None:
                raise
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def read_tensors(path: Path, *, format_name: str, version: int, remedy: str) -> TensorFile:
    """All tensors of a file that `write_tensors` wrote.

    Raises `UserError`, ending in `remedy`, where it is damaged or of another format or version.
    """
    require_file(path, remedy)
    path.open("rb").close()  # safetensors' own OSError has no errno and no file name
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # As copies: of a memory map, pages can be gone once another process prunes the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); {remedy}") from error
    try:
        facts = json.loads(metadata.get(METADATA_KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, its metadata is no JSON; {remedy}") from error
    if not isinstance(facts, dict):
        raise UserError(f"{path}: damaged, its metadata is no object; {remedy}")
    found = facts.get("format"), facts.get("format_version")
    if found != (format_name, version):
        raise UserError(
            f"{path}: format {found[0]!s:.100} version {found[1]!s:.100}, expected {format_name} "
            f"version {version}; {remedy}"
        )
    if facts.pop("sha256", None) != _sha256(tensors, facts):
        raise UserError(f"{path}: damaged, its content does not match its sha256; {remedy}")
    del facts["format"], facts["format_version"]
    return TensorFile(tensors, facts)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as a .npy file."""
    content = io.BytesIO()  # to a file NumPy's own OSError has no errno
    np.save(content, array, allow_pickle=False)
    write_bytes(path, content.getvalue())


def read_npy(path: Path, dtype: DTypeLike, num_dimensions: int, remedy: str) -> NDArray[Any]:
    """An array of a .npy file, in memory.

    Raises `UserError`, ending in `remedy`, where the file is damaged or holds another kind.
    """
    try:
        mapped = open_memmap(path, mode="r")  # a forged shape takes no memory
    except (
        ValueError,
        TypeError,
        OverflowError,
        SyntaxError,
        TokenError,
        RecursionError,
    ) as error:  # what NumPy raises for a header that is none
        raise UserError(f"{path}: not a whole .npy file ({error!s:.200}); {remedy}") from error
    if (mapped.dtype, mapped.ndim) != (dtype, num_dimensions):
        raise UserError(
            f"{path}: expected a .npy file of {np.dtype(dtype)} in {num_dimensions} dimensions; "
            f"{remedy}"
        )
    return np.array(mapped)


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


def _sha256(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Over facts, names, types, shapes and values; safetensors itself has no such check."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes, since NumPy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
