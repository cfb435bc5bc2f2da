"""The latents of a run's images: mean ++ log-variance of each, by all ranks into one file."""

import hashlib
import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray
from torch import Tensor

from vaekit.errors import UserError
from vaekit.images.pixels import as_floats
from vaekit.images.sets import Images, ImageSet, load_images
from vaekit.models.vae import VAE
from vaekit.progress import Progress
from vaekit.runs.folder import RunFolder, Weights
from vaekit.storage.files import atomic_path, errors_naming, file_sha256, temporary_path
from vaekit.storage.sealed import expected_of, read_sealed, strings, typed, write_sealed
from vaekit.storage.tensors import read_npy, write_array
from vaekit.training.noise import rank_slice
from vaekit.training.process import use_all_cores
from vaekit.training.ranks import first_on_each_machine, lost_ranks_in_one_line, start_ranks

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


@lost_ranks_in_one_line()
def extract_latents(run_path: Path) -> None:
    """Encode the images of a run into its latents/ folder; the stage behind `vaekit latents`.

    Under `accelerate launch` each rank encodes its share of the images.
    """
    run = RunFolder(run_path)
    config = run.require_config()
    weights = run.read_weights()
    ranks = start_ranks()
    use_all_cores(ranks.device)
    with first_on_each_machine(ranks):
        images = load_images(config.data, config.seed)
    run.require_images(weights, images)
    with run.lock() if ranks.is_main_process else nullcontext():
        _write_latents(run, weights, images, ranks)
    if ranks.is_main_process:
        print(f"latents: {run.latents}   next: vaekit svm {run.quoted}", flush=True)
    ranks.destroy_process_group()


def extract_missing_latents(run: RunFolder, *, keep_on_device: bool) -> Tensor | None:
    """Encode the images of a run without latents, which this process, the only one, has locked.

    Returns the training latents, float32 [N, 2 * latent_dim], on the device where they were made;
    None where the run has latents, be they good or not, or where the device shall not keep them.
    Raises `UserError` in one of several processes.
    """
    if _facts_path(run).exists():
        return None
    print(f"{run.latents}: no latents yet; making them first", flush=True)
    config = run.require_config()
    weights = run.read_weights()
    ranks = start_ranks()
    if ranks.num_processes > 1:
        raise UserError(
            f"{run.latents}: no latents yet, and {ranks.num_processes} processes; launch "
            f"`-m vaekit latents {run.quoted}` with them, and the SVM in one"
        )
    use_all_cores(ranks.device)
    images = load_images(config.data, config.seed)
    run.require_images(weights, images)
    kept = _write_latents(run, weights, images, ranks, keep_train=keep_on_device)
    return torch.cat(kept) if keep_on_device else None


def _write_latents(
    run: RunFolder,
    weights: Weights,
    images: Images,
    ranks: PartialState,
    keep_train: bool = False,
) -> list[Tensor]:
    """Returns the training latents as `encode_into` does."""
    written, kept = [], []
    if ranks.is_main_process:
        run.latents.mkdir(exist_ok=True)
    vae = weights.vae.to(ranks.device)
    for name, image_set, keep in (
        ("train", images.train, keep_train),
        ("test", images.test, False),
    ):
        written.append(run.latents / f"{name}_latents.npy")
        kept += encode_into(written[-1], vae, image_set, ranks, keep=keep)
        if ranks.is_main_process and image_set.labels is not None:
            written.append(run.latents / f"{name}_labels.npy")
            write_array(written[-1], image_set.labels)
    if ranks.is_main_process:
        write_sealed(
            _facts_path(run),
            {
                "format_version": FORMAT_VERSION,
                "model_sha256": weights.sha256,
                "images_sha256": weights.images_sha256,
                "class_names": weights.class_names,
                "files": {path.name: file_sha256(path) for path in written},
            },
        )
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

    Every rank writes its rows straight into one file under a temporary name, which the main
    process renames when all are done. Returns them batch by batch, still on the device, where
    they are to be kept; else none.
    """
    kept = []
    count, width = len(image_set.pixels), 2 * vae.config.latent_dim
    batch_size = batch_size_on(ranks.device)
    share = rank_slice(count, ranks.process_index, ranks.num_processes)
    header = _npy_header((count, width))
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
        with temporary.open("r+b") as file, progress:
            file.seek(first_row)
            for start in range(share.start, share.stop, batch_size):
                batch = slice(start, min(start + batch_size, share.stop))
                pixels = torch.from_numpy(image_set.pixels[batch]).to(ranks.device)
                rows = torch.cat(vae.enc(as_floats(pixels)), dim=1)
                file.write(rows.cpu().numpy().tobytes())
                if keep:
                    kept.append(rows)
                progress.advance(batch.stop - batch.start)
        ranks.wait_for_everyone()
    return kept


def read_latents(run: RunFolder) -> Latents:
    """The latents of a run, checked against their hashes and against the run's weights.

    Raises `UserError` where there are none, where they are damaged, or where other weights
    made them.
    """
    run.require_config()
    facts = read_facts(run)
    arrays = {name: read_array(run, facts, name) for name in facts["files"]}
    if not run.model.is_file() or file_sha256(run.model) != facts["model_sha256"]:
        raise UserError(f"{run.latents}: made from other weights than {run.model}; {_remedy(run)}")
    latents = Latents(
        train=arrays["train_latents.npy"],
        train_labels=arrays.get("train_labels.npy"),
        test=arrays["test_latents.npy"],
        test_labels=arrays.get("test_labels.npy"),
        class_names=tuple(facts["class_names"]),
        model_sha256=facts["model_sha256"],
        sha256=facts_sha256(facts),
    )
    fault = _fault(latents)
    if fault is not None:
        raise UserError(f"{run.latents}: {fault}; {_remedy(run)}")
    return latents


def read_facts(run: RunFolder) -> dict[str, Any]:
    """What is recorded beside the latents of a run, among it the files and their hashes."""
    path = _facts_path(run)
    if not path.is_file():
        raise UserError(f"{run.latents}: no latents yet; {_remedy(run)}")
    facts = read_sealed(path, version=FORMAT_VERSION, remedy=_remedy(run))
    with expected_of(path, _remedy(run)):
        typed(facts["model_sha256"], str)
        strings(facts["class_names"])
        files = typed(facts["files"], dict)
        if set(files) not in ({*LATENT_FILES}, {*LATENT_FILES, *LABEL_FILES}):
            raise ValueError(f"the files {sorted(files)!s:.100}")
    return facts


def read_array(run: RunFolder, facts: dict[str, Any], name: str) -> NDArray[Any]:
    """One of the files that `facts` names. Raises `UserError` where it is not as written."""
    path = run.latents / name
    if not path.is_file() or file_sha256(path) != facts["files"][name]:
        raise UserError(f"{path}: missing or not the file that was written; {_remedy(run)}")
    if name in LATENT_FILES:
        return read_npy(path, np.float32, 2, _remedy(run))
    return read_npy(path, np.int64, 1, _remedy(run))


def facts_sha256(facts: dict[str, Any]) -> str:
    """The sha256 over the hashes of all files: what an SVM is bound to."""
    files = facts["files"]
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


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """The beginning of a .npy file of float32 in C order."""
    header = io.BytesIO()
    kind = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
    write_array_header_1_0(header, kind)
    return header.getvalue()


def _remedy(run: RunFolder) -> str:
    return f"make them with `vaekit latents {run.quoted}`"


def _facts_path(run: RunFolder) -> Path:
    return run.latents / "latents.json"
