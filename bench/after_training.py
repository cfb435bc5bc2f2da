"""CPU time and memory of what follows training: `python -m bench.after_training 10000 1000000`.

A run of so many made-up images is put into a temporary folder, and each stage works on it in a
process of its own. Prints a table for docs/scale.md. Latents are as many and as hard as those of
MNIST's classes; images are all alike and take no memory, so that what is measured is the rest.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.made_up import NUM_CLASSES, clouds
from bench.stages import peak_of
from vaekit.config import DataConfig, ModelConfig, SvmConfig, TrainConfig
from vaekit.evaluation.mislabelled import suspect_labels
from vaekit.evaluation.neighbours import Stacked
from vaekit.evaluation.quality import active_dimensions, kl_of_dimensions
from vaekit.images.image_set import Images, ImageSet
from vaekit.models.vae import VAE
from vaekit.runs.folder import RunFolder
from vaekit.runs.index import write_index
from vaekit.runs.run import Run
from vaekit.runs.scores import find_alike, score
from vaekit.runs.weights import write_weights
from vaekit.settings import write_config
from vaekit.stages.encode import encode
from vaekit.stages.svm import fit_svm
from vaekit.storage.arrays import write_array
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import write_sealed

NUM_TEST = 10_000
NUM_GIVEN = 1000  # images of a person's own
NAMES = tuple(str(number) for number in range(NUM_CLASSES))
SIZE = 28


def black_images(*labels: NDArray[np.int64]) -> Images:
    """As many as there are labels to train and to test on."""
    train, test = (
        ImageSet(np.broadcast_to(np.uint8(0), (len(each), 1, SIZE, SIZE)), each) for each in labels
    )
    return Images(train, test, NAMES)


def labels_of(run: Run) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Those to train and to test on."""
    latents = run.latents
    assert latents.train_labels is not None
    assert latents.test_labels is not None
    return latents.train_labels, latents.test_labels


def open_latents(run: Run) -> None:
    assert len(run.latents.train)


def fit(run: Run) -> None:
    fit_svm(run, SvmConfig(), "sklearn")


def look_for_alike(run: Run) -> None:
    pixels = np.array(black_images(*labels_of(run)).test.pixels[:NUM_GIVEN])
    find_alike(run.weights, run.latents, pixels, 9)


def score_images(run: Run) -> None:
    images = black_images(*labels_of(run))
    score(run.weights, run.latents, images, np.array(images.test.pixels[:NUM_GIVEN]), 10, 0.01)


def suspect(run: Run) -> None:
    latents = run.latents
    suspect_labels(Stacked(latents.train_means, latents.test_means), np.concatenate(labels_of(run)))


def look_at_dimensions(run: Run) -> None:
    kl_of_dimensions(run.latents.train)
    active_dimensions(run.latents.train)


def write_table(run: Run) -> None:
    encode(run, [], run.folder.path / "all.parquet")


STAGES: dict[str, Callable[[Run], None]] = {
    "open the latents: hashes, index": open_latents,
    "`vaekit svm`": fit,
    f"`vaekit neighbours` of {NUM_GIVEN:,} images": look_for_alike,
    f"`vaekit score` of {NUM_GIVEN:,} images": score_images,
    "likely mislabelled, of `vaekit report`": suspect,
    "dimensions, of `vaekit evaluate`": look_at_dimensions,
    "`vaekit encode` to parquet": write_table,
}


def prepare(path: Path, num_images: int) -> None:
    """A run with latents, as the stages find it."""
    run = RunFolder(path)
    model = ModelConfig(latent_dim=10, conv_channels=(4,), hidden_dims=(16,))
    write_config(run.config, TrainConfig(run=str(path), data=DataConfig(name="mnist"), model=model))
    write_weights(run, VAE(model), NAMES, "0" * 64)
    run.latents.mkdir()
    points, labels = clouds(num_images + NUM_TEST)
    for name, rows in (("train", slice(NUM_TEST, None)), ("test", slice(NUM_TEST))):
        write_array(run.latents / f"{name}_latents.npy", points[rows])
        write_array(run.latents / f"{name}_labels.npy", labels[rows])
    images = black_images(labels[NUM_TEST:], labels[:NUM_TEST])
    write_index(run.latents / "index.parquet", images)
    write_sealed(
        run.latents / "latents.json",
        {
            "format_version": 2,
            "model_sha256": file_sha256(run.model),
            "class_names": NAMES,
            "files": {each.name: file_sha256(each) for each in run.latents.iterdir()},
        },
    )


def main() -> None:
    if sys.argv[1] in STAGES:
        run, work = Run(sys.argv[2]), STAGES[sys.argv[1]]
        _ = run.weights
        start = time.process_time()
        peak = peak_of(lambda: work(run))
        taken = time.process_time() - start
        print(json.dumps({"seconds": taken, "megabytes": (peak.most - peak.before) / 1e6}))
        return
    sizes = [int(each) for each in sys.argv[1:]]
    rows: dict[str, list[str]] = {name: [] for name in STAGES}
    for num_images in sizes:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder) / "run", num_images)
            for name in STAGES:
                command = [sys.executable, "-m", "bench.after_training", name, f"{folder}/run"]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                rows[name].append(f"{found['seconds']:.1f} s, {found['megabytes']:,.0f} MB")
    print("|", *(f"| {each:,}" for each in sizes), "|")
    print("|---", "|---:" * len(sizes), "|", sep="")
    for name, cells in rows.items():
        print("|", name, "|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
