"""The latents of a run's images: mean ++ log-variance of each, by all ranks into one file."""

from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from vaekit.errors import UserError
from vaekit.images.image_set import ImageSet
from vaekit.images.pixels import as_floats
from vaekit.models.vae import VAE
from vaekit.progress import Progress
from vaekit.runs.index import CSV_INDEX, INDEX, write_index
from vaekit.runs.latents import FORMAT_VERSION
from vaekit.runs.products import LATENTS
from vaekit.runs.run import Run
from vaekit.storage.arrays import npy_header, write_array
from vaekit.storage.files import atomic_path, errors_naming, file_sha256, temporary_path
from vaekit.storage.sealed import write_sealed
from vaekit.training.noise import rank_slice
from vaekit.training.precision import without_tf32
from vaekit.training.process import use_all_cores
from vaekit.training.ranks import first_on_each_machine, lost_ranks_in_one_line, start_ranks


@lost_ranks_in_one_line()
def extract_latents(run: Run) -> None:
    """Encode the images of a run into its latents/ folder; the stage behind `vaekit latents`.

    Under `accelerate launch` each rank encodes its share of the images.
    """
    _ = run.weights  # before images are downloaded or decoded
    ranks = start_ranks()
    use_all_cores(ranks.device)
    with first_on_each_machine(ranks):
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
    None where the run has latents, be they good or not, or where the device shall not keep them.
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
    return torch.cat(kept) if keep_on_device else None


def _write_latents(run: Run, ranks: PartialState, keep_train: bool = False) -> list[Tensor]:
    """Returns the training latents as `encode_into` does."""
    weights, images, folder = run.weights, run.images, run.folder.latents
    run.forget("latents", "_latents_metadata", "svm_metrics", "images", "unchecked_images")
    # A copy, since the run keeps its own on the CPU.
    vae = weights.vae if ranks.device.type == "cpu" else deepcopy(weights.vae).to(ranks.device)
    written, kept = [], []
    if ranks.is_main_process:
        folder.mkdir(exist_ok=True)
    for name, image_set, keep in (
        ("train", images.train, keep_train),
        ("test", images.test, False),
    ):
        written.append(folder / f"{name}_latents.npy")
        kept += encode_into(written[-1], vae, image_set, ranks, keep=keep)
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
                "model_sha256": run.sha256("weights"),
                "images_sha256": weights.images_sha256,
                "class_names": weights.class_names,
                "files": {path.name: file_sha256(path) for path in written},
            },
        )
        (folder / CSV_INDEX).unlink(missing_ok=True)
    return kept


def batch_size_on(device: torch.device) -> int:
    """Images to encode at once: few enough for a CPU's caches, many enough for a GPU's cores."""
    return 4096 if device.type == "cuda" else 500


@torch.no_grad()
def encode_into(
    path: Path,
    vae: VAE,
    image_set: ImageSet,
    ranks: PartialState,
    *,
    keep: bool = False,
) -> list[Tensor]:
    """Write the latents of `image_set`, float32 [N, 2 * latent_dim], to a .npy file.

    They are computed in float32, without TF32, as a CPU and the ONNX graphs compute them. Every
    rank writes its rows straight into one file under a temporary name, which the main
    process renames when all are done. Returns them batch by batch, still on the device, where
    they are to be kept; else none.
    """
    kept = []
    count, width = len(image_set.pixels), 2 * vae.latent_dim
    batch_size = batch_size_on(ranks.device)
    share = rank_slice(count, ranks.process_index, ranks.num_processes)
    header = npy_header((count, width), np.float32)
    first_row = len(header) + share.start * width * np.dtype(np.float32).itemsize
    progress = Progress(
        path.stem.replace("_", " "),
        share.stop - share.start,
        "images",
        visible=ranks.is_main_process,
    )
    place = atomic_path(path) if ranks.is_main_process else nullcontext(temporary_path(path))
    with errors_naming(path), place as temporary:
        if ranks.is_main_process:
            temporary.write_bytes(header)
        ranks.wait_for_everyone()
        # No memory map: there a full disk would kill the process.
        with temporary.open("r+b") as file, progress, without_tf32():
            file.seek(first_row)
            for start in range(share.start, share.stop, batch_size):
                batch = slice(start, min(start + batch_size, share.stop))
                pixels = torch.from_numpy(image_set.pixels[batch]).to(ranks.device)
                rows = torch.cat(vae.encode(as_floats(pixels)), dim=1)
                file.write(rows.cpu().numpy().tobytes())
                if keep:
                    kept.append(rows)
                progress.advance(batch.stop - batch.start)
        ranks.wait_for_everyone()
    return kept
