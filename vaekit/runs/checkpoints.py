"""Checkpoints: one safetensors file each, written whole or not at all."""

from pathlib import Path

import torch

from vaekit.errors import UserError, say
from vaekit.storage.damage import Damaged, as_written, number, typed
from vaekit.storage.tensors import read_tensors, write_tensors
from vaekit.training.state import Checkpoint

FORMAT_NAME = "vaekit-checkpoint"
FORMAT_VERSION = 2
NUM_KEPT = 2


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write step-NNNNNNNN.safetensors and, once it is safe, prune all but the last two."""
    write_tensors(
        folder / f"step-{checkpoint.step:08d}.safetensors",
        checkpoint.tensors,
        {"step": checkpoint.step, **checkpoint.metadata},
        format_name=FORMAT_NAME,
        version=FORMAT_VERSION,
    )
    for old in _newest_first(folder)[NUM_KEPT:]:
        old.unlink()


def load_newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where none was ever written.

    A damaged one is named on standard error and passed over. Raises `UserError` where all are.
    """
    paths = _newest_first(folder)
    for path in paths:
        try:
            return load_checkpoint(path)
        except Damaged as damage:
            say(f"warning: {path}: {damage}; remove it; resuming from the one before")
    if paths:
        raise UserError(
            f"{folder}: none of the {len(paths)} checkpoints can be read; "
            f"give another --run folder to start anew"
        )
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify one checkpoint. Raises `Damaged` where it is something else."""
    tensors, metadata = read_tensors(path, format_name=FORMAT_NAME, version=FORMAT_VERSION)
    with as_written():
        step = typed(metadata.pop("step"), int)
        for name in ("mixed_precision", "execution_path", "images_sha256"):
            typed(metadata[name], str)
        typed(metadata["config"], dict)
        typed(metadata["metrics"], list)
        number(metadata["seconds"])
        if metadata["scaler"] is not None:
            typed(metadata["scaler"], dict)
        losses = tensors["losses"]
        if losses.dtype != torch.float64 or losses.ndim != 2 or losses.shape[1] != 2:
            raise ValueError(f"losses of shape {tuple(losses.shape)}")
    return Checkpoint(step, tensors, metadata)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"), reverse=True)
