"""The latents in a run folder: arrays, with labels, and metadata that name and bind them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.storage.damage import Damaged, as_written, strings, typed
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import read_sealed
from vaekit.storage.tensors import read_npy

FORMAT_VERSION = 2

LATENT_FILES = ("train_latents.npy", "test_latents.npy")
LABEL_FILES = ("train_labels.npy", "test_labels.npy")  # none for an unlabelled set


class Latents(NamedTuple):
    """What the encoder says of the images: float32 [N, 2 * latent_dim], labels int64 [N]."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64] | None
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    model_sha256: str  # of the weights that made them
    sha256: str  # of themselves: what an SVM is bound to


def read_metadata(path: Path) -> dict[str, Any]:
    """What latents.json says of the files beside it. Raises `Damaged` where it is another file."""
    metadata = read_sealed(path, version=FORMAT_VERSION)
    with as_written():
        typed(metadata["model_sha256"], str)
        strings(metadata["class_names"])
        files = typed(metadata["files"], dict)
        if set(files) not in ({*LATENT_FILES}, {*LATENT_FILES, *LABEL_FILES}):
            raise ValueError(f"the files {sorted(files)!s:.100}")
    return metadata


def read_array(path: Path, sha256: str) -> NDArray[Any]:
    """One of the files that latents.json names. Raises `Damaged` where it is another one."""
    if not path.is_file() or file_sha256(path) != sha256:
        raise Damaged("missing or not the file that was written")
    if path.name in LATENT_FILES:
        return read_npy(path, np.float32, 2)
    return read_npy(path, np.int64, 1)


def assemble(metadata: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Latents:
    """The latents of one run. Raises `Damaged` where the arrays don't fit one another."""
    latents = Latents(
        train=arrays["train_latents.npy"],
        train_labels=arrays.get("train_labels.npy"),
        test=arrays["test_latents.npy"],
        test_labels=arrays.get("test_labels.npy"),
        class_names=tuple(metadata["class_names"]),
        model_sha256=metadata["model_sha256"],
        sha256=latents_sha256(metadata),
    )
    if fault := _fault(latents):
        raise Damaged(fault)
    return latents


def latents_sha256(metadata: dict[str, Any]) -> str:
    """The sha256 over the hashes of all files: what an SVM is bound to."""
    files = metadata["files"]
    text = "".join(f"{name} {files[name]}\n" for name in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


def _fault(latents: Latents) -> str | None:
    """What keeps arrays of the right types from being the latents of one run, if anything does."""
    num_columns = latents.train.shape[1]
    if num_columns == 0 or num_columns % 2 or latents.test.shape[1] != num_columns:
        return f"latents of {num_columns} and {latents.test.shape[1]} columns"
    for name, rows, labels in (
        ("train", latents.train, latents.train_labels),
        ("test", latents.test, latents.test_labels),
    ):
        if len(rows) == 0:
            return f"no {name} latents"
        if labels is None:
            continue
        if len(labels) != len(rows):
            return f"{len(labels)} {name} labels of {len(rows)} latents"
        if labels.min() < 0 or labels.max() >= len(latents.class_names):
            return f"{name} labels that are no index into the {len(latents.class_names)} classes"
    return None
