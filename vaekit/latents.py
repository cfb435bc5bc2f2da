"""The latents of a run's images: mean ++ log-variance of each, by all ranks into one file."""

import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from vaekit.batches import as_floats, rank_slice
from vaekit.errors import UserError
from vaekit.files import file_sha256, publish, read_json, temporary_path, write_json
from vaekit.images import ImageSet, load_images
from vaekit.model import VAE
from vaekit.processes import start_ranks
from vaekit.progress import Progress
from vaekit.run_folder import RunFolder
from vaekit.tensor_files import write_array

FORMAT_VERSION = 1
BATCH_SIZE = 500


class Latents(NamedTuple):
    """What the encoder says of the images: float32 [N, 2 * latent_dim], labels int64 [N]."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64] | None
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    model_sha256: str  # of the weights that made them
    sha256: str  # of themselves: what an SVM is bound to


def extract_latents(run_path: Path) -> None:
    """Encode the images of a run into its latents/ folder; the stage behind `vaekit latents`.

    Under `accelerate launch` each rank encodes its share of the images.
    """
    run = RunFolder(run_path)
    config = run.require_config()
    weights = run.read_weights()
    ranks = start_ranks()
    with ranks.local_main_process_first():
        images = load_images(config.data, config.seed)
    run.require_images(weights, images)
    with ExitStack() as stack:
        if ranks.is_main_process:
            stack.enter_context(run.lock())
            run.latents.mkdir(exist_ok=True)
        vae = weights.vae.to(ranks.device)
        written = []
        for name, image_set in (("train", images.train), ("test", images.test)):
            written.append(run.latents / f"{name}_latents.npy")
            encode_into(written[-1], vae, image_set, ranks)
            if ranks.is_main_process and image_set.labels is not None:
                written.append(run.latents / f"{name}_labels.npy")
                write_array(written[-1], image_set.labels)
        if ranks.is_main_process:
            write_json(
                _facts_path(run),
                {
                    "format_version": FORMAT_VERSION,
                    "model_sha256": weights.sha256,
                    "images_sha256": weights.images_sha256,
                    "class_names": weights.class_names,
                    "files": {path.name: file_sha256(path) for path in written},
                },
            )
            print(f"latents: {run.latents}   next: vaekit svm {run.quoted}", flush=True)
    ranks.destroy_process_group()


@torch.no_grad()
def encode_into(path: Path, vae: VAE, image_set: ImageSet, ranks: PartialState) -> None:
    """Write the latents of `image_set`, float32 [N, 2 * latent_dim], to a .npy file.

    Every rank writes its rows straight into one file under a temporary name, which the main
    process renames when all are done.
    """
    count, temporary = len(image_set.pixels), temporary_path(path)
    if ranks.is_main_process:
        shape = (count, 2 * vae.config.latent_dim)
        open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
    ranks.wait_for_everyone()
    rows = open_memmap(temporary, mode="r+")
    share = rank_slice(count, ranks.process_index, ranks.num_processes)
    what = path.stem.replace("_", " ")
    with Progress(what, share.stop - share.start, "images", visible=ranks.is_main_process) as bar:
        for start in range(share.start, share.stop, BATCH_SIZE):
            batch = slice(start, min(start + BATCH_SIZE, share.stop))
            pixels = torch.from_numpy(image_set.pixels[batch]).to(ranks.device)
            rows[batch] = torch.cat(vae.enc(as_floats(pixels)), dim=1).cpu().numpy()
            bar.advance(batch.stop - batch.start)
    rows.flush()
    ranks.wait_for_everyone()
    if ranks.is_main_process:
        publish(temporary, path)


def read_latents(run: RunFolder) -> Latents:
    """The latents of a run, checked against their hashes and against the run's weights.

    Raises `UserError` where there are none, where they are damaged, or where other weights
    made them.
    """
    remedy = f"make them with `vaekit latents {run.quoted}`"
    run.require_config()
    if not _facts_path(run).is_file():
        raise UserError(f"{run.latents}: no latents yet; {remedy}")
    facts = read_json(_facts_path(run), remedy)
    if not isinstance(facts, dict) or facts.get("format_version") != FORMAT_VERSION:
        raise UserError(f"{_facts_path(run)}: expected format version {FORMAT_VERSION}; {remedy}")
    for name, recorded in facts["files"].items():
        path = run.latents / name
        if not path.is_file() or file_sha256(path) != recorded:
            raise UserError(f"{path}: missing or not the file that was written; {remedy}")
    if not run.model.is_file() or file_sha256(run.model) != facts["model_sha256"]:
        raise UserError(f"{run.latents}: made from other weights than {run.model}; {remedy}")

    arrays = {name: np.load(run.latents / name) for name in facts["files"]}
    return Latents(
        train=arrays["train_latents.npy"],
        train_labels=arrays.get("train_labels.npy"),
        test=arrays["test_latents.npy"],
        test_labels=arrays.get("test_labels.npy"),
        class_names=tuple(facts["class_names"]),
        model_sha256=facts["model_sha256"],
        sha256=hashlib.sha256(
            "".join(f"{name} {facts['files'][name]}\n" for name in sorted(facts["files"])).encode()
        ).hexdigest(),
    )


def _facts_path(run: RunFolder) -> Path:
    return run.latents / "latents.json"
