"""The latents of a run's images: mean ++ log-variance of each, by all ranks into one file."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from vaekit.errors import UserError, say
from vaekit.images.image_set import ImageSet
from vaekit.images.pixels import as_floats
from vaekit.models.vae import VAE
from vaekit.progress import Progress
from vaekit.runs.index import CSV_INDEX, INDEX, write_index
from vaekit.runs.latent_parts import (
    Part,
    parts_there,
    plan_parts,
    read_part,
    remove_parts,
    write_part,
)
from vaekit.runs.latents import FORMAT_VERSION, LATENT_FILES
from vaekit.runs.products import LATENTS
from vaekit.runs.run import Run
from vaekit.storage.arrays import write_array, write_rows
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import write_sealed
from vaekit.training.precision import without_tf32
from vaekit.training.process import use_all_cores
from vaekit.training.ranks import (
    ImageRanks,
    lost_ranks_in_one_line,
    start_ranks,
)


@lost_ranks_in_one_line()
def extract_latents(run: Run) -> None:
    """Encode the images of a run into its latents/ folder; the stage behind `vaekit latents`.

    Under `accelerate launch` each rank encodes its share of the images. An encoding that was
    interrupted goes on: of the same weights and images, what was done is taken over.
    """
    _ = run.weights  # before images are downloaded or decoded
    ranks = start_ranks()
    use_all_cores(ranks.device)
    with ImageRanks(ranks).first_on_each_machine():
        _ = run.unchecked_images
    _ = run.images
    with run.folder.lock() if ranks.is_main_process else nullcontext():
        _write_latents(run, ranks)
    if ranks.is_main_process:
        folder = run.folder
        stage = "svm" if run.weights.class_names else "report"
        print(f"latents: {folder.latents}   next: vaekit {stage} {folder.quoted}", flush=True)
    ranks.destroy_process_group()


def extract_missing_latents(run: Run, *, keep_on_device: bool) -> Tensor | None:
    """Encode the images of a run without latents, which this process, the only one, has locked.

    Returns the training latents, float32 [N, 2 * latent_dim], on the device where they were made;
    None where the run has latents, be they good or not, where some were encoded before an
    interruption, or where the device shall not keep them.
    Raises `UserError` in one of several processes.
    """
    folder = run.folder
    if LATENTS.path(folder).exists():
        return None
    print(f"{folder.latents}: no latents yet; making them first", flush=True)
    _ = run.weights
    ranks = start_ranks()
    if ranks.num_processes > 1:
        raise UserError(
            f"{folder.latents}: no latents yet, and {ranks.num_processes} processes; launch "
            f"`-m vaekit latents {folder.quoted}` with them, and the SVM in one"
        )
    use_all_cores(ranks.device)
    kept = _write_latents(run, ranks, keep_train=keep_on_device)
    return torch.cat(kept) if kept else None


def _write_latents(run: Run, ranks: PartialState, keep_train: bool = False) -> list[Tensor]:
    """Returns the training latents as `encode_into` does."""
    weights, images, folder = run.weights, run.images, run.folder.latents
    made_of = {"model_sha256": run.sha256("weights"), "images_sha256": weights.images_sha256}
    run.forget("latents", "_latents_metadata", "svm_metrics", "images", "unchecked_images")
    # A copy, since the run keeps its own on the CPU.
    vae = weights.vae if ranks.device.type == "cpu" else deepcopy(weights.vae).to(ranks.device)
    written, kept = [], []
    for name, image_set, keep in (
        ("train", images.train, keep_train),
        ("test", images.test, False),
    ):
        written.append(folder / f"{name}_latents.npy")
        kept += encode_into(written[-1], vae, image_set, ranks, made_of, keep=keep)
        if ranks.is_main_process and image_set.labels is not None:
            written.append(folder / f"{name}_labels.npy")
            write_array(written[-1], image_set.labels)
    if ranks.is_main_process:
        written.append(folder / INDEX)
        write_index(written[-1], images)
        write_sealed(
            LATENTS.path(run.folder),
            {
                "format_version": FORMAT_VERSION,
                **made_of,
                "class_names": weights.class_names,
                "files": {path.name: file_sha256(path) for path in written},
            },
        )
        for name in LATENT_FILES:
            remove_parts(folder / name)
        (folder / CSV_INDEX).unlink(missing_ok=True)
    return kept


def batch_size_on(device: torch.device) -> int:
    """Images to encode at once: few enough for a CPU's caches, many enough for a GPU's cores."""
    return 4096 if device.type == "cuda" else 500


def encode_into(
    path: Path,
    vae: VAE,
    image_set: ImageSet,
    ranks: PartialState,
    made_of: Mapping[str, Any] | None = None,
    *,
    keep: bool = False,
) -> list[Tensor]:
    """Write the latents of `image_set`, float32 [N, 2 * latent_dim], to a .npy file.

    Each rank encodes parts of them, which it keeps beside `path`, and the main process joins those
    once all are there. What `made_of` says tells these weights and images from others: parts of
    the same are not encoded again, and stay until `remove_parts`; without it all are made anew.
    Returns the latents to `keep`, still on the device, part by part; none where a part was there.
    """
    shape = (len(image_set.pixels), 2 * vae.latent_dim)
    batch_size = batch_size_on(ranks.device)
    parts = plan_parts(path, shape[0], batch_size, ranks.num_processes)
    is_main, made_of = ranks.is_main_process, made_of or {}
    if is_main and not made_of:
        remove_parts(path)
    missing = _missing(path, parts, made_of, ranks)
    own, kept = missing[ranks.process_index :: ranks.num_processes], []
    total, title = sum(len(part.rows) for part in own), path.stem.replace("_", " ")
    with Progress(title, total, "images", visible=is_main) as progress:
        for part in own:
            batches = part.batches(batch_size)
            latents = _encode(vae, image_set, batches, ranks.device, progress)
            write_part(part, latents, made_of)
            if keep:
                kept.append(latents)
    ranks.wait_for_everyone()
    if is_main:
        write_rows(path, shape, np.float32, (read_part(part, made_of) for part in parts))
    return kept if len(missing) == len(parts) else []


def _missing(
    path: Path, parts: Sequence[Part], made_of: Mapping[str, Any], ranks: PartialState
) -> list[Part]:
    """The parts that are still to be encoded, as the main process sees it."""
    there = parts_there(path, parts, made_of) if ranks.is_main_process else []
    there = json.loads(ImageRanks(ranks).share(json.dumps(there)))
    missing = [part for part, is_there in zip(parts, there, strict=True) if not is_there]
    if ranks.is_main_process and any(there):
        num_missing = sum(len(part.rows) for part in missing)
        num_images = parts[-1].rows.stop
        say(f"{path}: {num_missing:,} of {num_images:,} images are still to be encoded")
    return missing


@torch.no_grad()
def _encode(
    vae: VAE,
    image_set: ImageSet,
    batches: Sequence[slice],
    device: torch.device,
    progress: Progress,
) -> Tensor:
    """In float32, without TF32, as a CPU and the ONNX graphs compute: [n, 2 * latent_dim]."""
    latents = []
    with without_tf32():
        for batch in batches:
            pixels = torch.from_numpy(image_set.pixels[batch]).to(device)
            latents.append(torch.cat(vae.encode(as_floats(pixels)), dim=1))
            progress.advance(batch.stop - batch.start)
    return torch.cat(latents)
