"""One stage of vaekit, or its peer, in a process of its own: `python -m bench.stages NAME FOLDER`.

Prints a `Peak` as JSON. The folder holds what the stage works on (`bench.memory.prepare`).
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

Work = Callable[[], object]

BATCH_SIZE = 128
TO_ENCODE = 1000  # images at once


class Peak(NamedTuple):
    """Memory in bytes: what the process held before its work, and the most while it worked."""

    before: int
    most: int
    device: int  # the most that tensors on a GPU took; 0 without one


def peak_of(work: Work) -> Peak:
    """Run `work`; Linux tells and forgets the most resident memory of a process."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    work()
    return Peak(before, _resident("VmHWM"), _on_device())


def train(folder: Path) -> Work:
    from bench.trainings import epochs_of, start_training
    from vaekit.models.settle import REFERENCE
    from vaekit.training.process import set_up_process
    from vaekit.training.ranks import start_ranks

    num_steps = len(np.load(folder / "pixels.npy", mmap_mode="r")) // BATCH_SIZE

    def work() -> None:
        set_up_process(start_ranks().device)  # as the command does
        epochs_of(start_training(REFERENCE, BATCH_SIZE, num_steps))()

    return work


def train_with_loader(folder: Path) -> Work:
    from accelerate import PartialState

    from bench import plain_loops
    from vaekit.models.vae import VAE

    pixels, device = np.load(folder / "pixels.npy"), PartialState().device

    def work() -> None:
        plain_loops.train_with_loader(VAE().to(device), pixels, BATCH_SIZE, "float32")()

    return work


def encode_latents(folder: Path) -> Work:
    from accelerate import PartialState

    from vaekit.images.image_set import ImageSet
    from vaekit.models.vae import VAE
    from vaekit.stages.latents import encode_into

    ranks = PartialState()
    vae, image_set = VAE().eval().to(ranks.device), ImageSet(np.load(folder / "pixels.npy"), None)
    return lambda: encode_into(folder / "ours.npy", vae, image_set, ranks)


def encode_latents_with_loader(folder: Path) -> Work:
    from accelerate import PartialState

    from bench.plain_loops import encode_with_loader
    from vaekit.models.vae import VAE
    from vaekit.stages.latents import batch_size_on

    vae, pixels = VAE().eval().to(PartialState().device), np.load(folder / "pixels.npy")
    batch_size = batch_size_on(PartialState().device)
    return lambda: np.save(folder / "theirs.npy", encode_with_loader(vae, pixels, batch_size))


def fit(folder: Path) -> Work:
    from vaekit.config import SvmConfig
    from vaekit.svm.fit import fit_table

    latents, labels = np.load(folder / "latents.npy"), np.load(folder / "labels.npy")
    return lambda: fit_table(latents, labels, SvmConfig())


def fit_with_scikit_learn(folder: Path) -> Work:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    from vaekit.config import SvmConfig
    from vaekit.svm.one_vs_one import KERNEL_CACHE_MB

    config = SvmConfig()
    latents, labels = np.load(folder / "latents.npy"), np.load(folder / "labels.npy")
    svc = SVC(C=config.C, gamma=config.gamma / latents.shape[1], cache_size=KERNEL_CACHE_MB)
    pipeline = make_pipeline(StandardScaler(), svc)
    return lambda: pipeline.fit(latents.astype(np.float64), labels)


def predict(folder: Path) -> Work:
    from vaekit.runs.svm import read_table
    from vaekit.svm.table import predict

    table = read_table(folder / "svm.safetensors").table
    latents = np.load(folder / "latents.npy")
    return lambda: predict(table, latents)


def export(folder: Path) -> Work:
    from vaekit.export.bundle import export_run
    from vaekit.runs.run import Run

    return lambda: export_run(Run(folder / "run"))


def encode(folder: Path) -> Work:
    import onnxruntime

    pixels = np.load(folder / "pixels.npy")[:TO_ENCODE]
    model = folder / "run" / "onnx" / "encoder.onnx"

    def work() -> None:
        onnxruntime.InferenceSession(model).run(None, {"image": pixels})

    return work


def encode_with_pytorch(folder: Path) -> Work:
    import torch

    from vaekit.images.pixels import as_floats
    from vaekit.models.vae import VAE

    pixels = torch.from_numpy(np.load(folder / "pixels.npy")[:TO_ENCODE])
    return torch.inference_mode()(lambda: VAE().encode(as_floats(pixels)))


def classify(folder: Path) -> Work:
    import onnxruntime

    pixels = np.load(folder / "pixels.npy")[:TO_ENCODE]
    model = folder / "run" / "onnx" / "classifier.onnx"

    def work() -> None:
        onnxruntime.InferenceSession(model).run(["label"], {"image": pixels})

    return work


STAGES = {
    stage.__name__: stage
    for stage in (
        train,
        train_with_loader,
        encode_latents,
        encode_latents_with_loader,
        fit,
        fit_with_scikit_learn,
        predict,
        export,
        encode,
        encode_with_pytorch,
        classify,
    )
}


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(kilobytes)


def _on_device() -> int:
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_allocated() if torch and torch.cuda.is_available() else 0


if __name__ == "__main__":
    name, folder = sys.argv[1:]
    print(json.dumps(peak_of(STAGES[name](Path(folder)))))
