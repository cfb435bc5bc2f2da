"""How well the images of a run are told by it, and by what takes no training: baselines/."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.images import baselines as untrained
from vaekit.images.image_set import Images
from vaekit.images.mapped import PixelArray
from vaekit.images.pixels import as_floats, psnr
from vaekit.progress import Progress
from vaekit.runs.folder import RunFolder
from vaekit.storage.arrays import read_npy, write_rows
from vaekit.storage.damage import as_written, number, typed
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import read_sealed, write_sealed

if TYPE_CHECKING:
    from vaekit.models.vae import VAE

FORMAT_VERSION = 1
SCORES = ("train_scores.npy", "test_scores.npy")  # of principal components, float32 [N, K]


class PcaScores(NamedTuple):
    """The principal components of images, float32 [N, K], largest first."""

    train: NDArray[np.float32]
    test: NDArray[np.float32]


def measure_baselines(run: RunFolder, vae: "VAE", images: Images, images_sha256: str) -> None:
    """Measure reconstructions of the test images, and write that with the scores of PCA.

    `vae` are the weights in the run's model.safetensors, on any device. Components are as many as
    an SVM sees numbers, mean ++ log-variance; the first half of them is as many as latents.
    """
    train, test = images.train.pixels, images.test.pixels
    components = untrained.fit_components(train, 2 * vae.latent_dim)
    num_components = len(components.directions)
    errors, own_error = np.zeros(num_components + 1), 0.0
    run.baselines.mkdir(exist_ok=True)
    with Progress("comparing with PCA", len(train) + 2 * len(test), "images") as progress:
        for name, pixels in zip(SCORES, (train, test), strict=True):
            batches = (pixels[batch] for batch in _batches(len(pixels)))
            scores = _projected(batches, components, progress)
            write_rows(run.baselines / name, (len(pixels), num_components), np.float32, scores)
        test_scores = read_npy(run.baselines / SCORES[1], np.float32, 2)
        for batch in _batches(len(test)):
            errors += untrained.squared_errors(test[batch], test_scores[batch], components)
            own_error += _squared_error(vae, test[batch])
            progress.advance(batch.stop - batch.start)
    train_mean, test_mean = untrained.mean_of(train), untrained.mean_of(test)
    nats = None
    if vae.config.likelihood == "bernoulli":
        nats = untrained.bernoulli_nats(train_mean, len(train), test_mean)
    counts = sorted({min(vae.latent_dim, num_components), num_components} - {0})
    write_sealed(
        run.baselines / "baselines.json",
        {
            "format_version": FORMAT_VERSION,
            "model_sha256": file_sha256(run.model),
            "images_sha256": images_sha256,
            "num_fitted": components.num_fitted,
            "vae": _figures(own_error, test),
            "mean_image": {**_figures(errors[0], test), "nats": nats},
            "pca": [{"components": each, **_figures(errors[each], test)} for each in counts],
            "files": {name: file_sha256(run.baselines / name) for name in SCORES},
        },
    )


def read_baselines(path: Path) -> dict[str, Any]:
    """What `measure_baselines` measured. Raises `Damaged` where the file is something else."""
    baselines = read_sealed(path, version=FORMAT_VERSION)
    with as_written():
        for name in ("model_sha256", "images_sha256"):
            typed(baselines[name], str)
        typed(baselines["num_fitted"], int)
        if baselines["mean_image"]["nats"] is not None:
            number(baselines["mean_image"]["nats"])
        for figures in (baselines["vae"], baselines["mean_image"], *baselines["pca"]):
            number(figures["mse"])
            if figures["psnr"] is not None:
                number(figures["psnr"])
        for figures in baselines["pca"]:
            typed(figures["components"], int)
        if set(baselines["files"]) != {*SCORES}:
            raise ValueError(f"the files {sorted(baselines['files'])!s:.100}")
    return baselines


def _batches(count: int) -> list[slice]:
    size = untrained.BATCH_SIZE
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _projected(
    batches: Iterable[NDArray[np.uint8]], components: untrained.Components, progress: Progress
) -> Iterator[NDArray[np.float32]]:
    for batch in batches:
        yield untrained.project(batch, components)
        progress.advance(len(batch))


def _squared_error(vae: "VAE", batch: NDArray[np.uint8]) -> float:
    """Of the reconstructions from the means of the latents, summed over images and pixels."""
    import torch  # whose time who reads what was measured need not spend

    device = next(vae.parameters()).device
    with torch.no_grad():
        images = as_floats(torch.from_numpy(batch).to(device))
        difference = vae.decode(vae.encode(images).mean) - images
        return float(difference.double().square().sum())


def _figures(squared_error: float, test: PixelArray) -> dict[str, float | None]:
    """Mean squared error of a value in [0, 1], and the PSNR."""
    mse = float(squared_error) / test.size
    return {"mse": mse, "psnr": psnr(mse)}
