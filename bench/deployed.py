"""What is deployed in the benchmarks: weights, an SVM, and images to run them on."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from vaekit.config import SvmConfig
from vaekit.images.pixels import as_floats
from vaekit.models.vae import VAE
from vaekit.runs.run import Run
from vaekit.svm.fit import fit_table, weights_of_latents
from vaekit.svm.table import SvmTable

NUM_CLASSES = 10
BATCH_SIZE = 500


class Deployed(NamedTuple):
    """Parts that belong together. The weights are such that float16 holds them."""

    vae: VAE
    table: SvmTable
    pipeline: Pipeline  # scikit-learn's own form of the table
    pixels: NDArray[np.uint8]  # [N, C, H, W]
    latents: NDArray[np.float32]  # [N, 2 * latent_dim], of `pixels`


def deploy_run(path: Path) -> Deployed:
    """A real run with latents and SVM. scikit-learn fits again, as it did for the table."""
    run = Run(path)
    metrics, latents = run.svm_metrics, run.latents
    assert latents.train_labels is not None  # or there would be no metrics
    vae = _rounded(run.weights.vae)
    pixels = run.images.test.pixels
    weight = metrics.get("log_variances", 1.0)
    pipeline = _fit(latents.train, latents.train_labels, metrics["C"], metrics["gamma"], weight)
    return Deployed(vae, run.svm.table, pipeline, pixels, latents.test)


def make_up(num_train: int, num_test: int) -> Deployed:
    """Untrained weights, and an SVM fitted to their latents of 10 noisy images.

    A fifth of the labels are wrong, so that most latents become support vectors: 9,000 do for
    as many as the SVM of MNIST has, and are fitted sooner than its 60,000.
    """
    torch.manual_seed(0)
    vae = _rounded(VAE())
    generator = np.random.default_rng(0)
    templates = generator.integers(0, 256, (NUM_CLASSES, *vae.image_shape))
    classes = generator.integers(0, NUM_CLASSES, num_train + num_test)
    pixels = np.empty((len(classes), *vae.image_shape), dtype=np.uint8)
    for row, label in enumerate(classes):
        noise = generator.integers(-64, 65, vae.image_shape)
        pixels[row] = np.clip(templates[label] + noise, 0, 255)
    latents = _encode(vae, pixels)
    is_wrong = generator.random(num_train) < 0.2
    labels = np.where(is_wrong, generator.integers(0, NUM_CLASSES, num_train), classes[:num_train])
    config = SvmConfig()
    table = fit_table(latents[:num_train], labels, config)
    pipeline = _fit(latents[:num_train], labels, config.C, config.gamma)
    return Deployed(vae, table, pipeline, pixels[num_train:], latents[num_train:])


def _fit(
    latents: NDArray[np.float32],
    labels: NDArray[np.int64],
    C: float,
    gamma: float,
    log_variances: float = 1.0,
) -> Pipeline:
    weights = weights_of_latents(SvmConfig(log_variances=log_variances), latents.shape[1])
    scaler = StandardScaler().fit(latents.astype(np.float64))
    scaler.scale_ = scaler.scale_ / weights
    svc = SVC(C=C, gamma=gamma / np.square(weights).sum(), cache_size=1000)
    return make_pipeline(scaler, svc.fit(scaler.transform(latents.astype(np.float64)), labels))


@torch.inference_mode()
def _encode(vae: VAE, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    batches = torch.split(torch.from_numpy(pixels), BATCH_SIZE)
    return torch.cat([torch.cat(vae.encode(as_floats(batch)), dim=1) for batch in batches]).numpy()


def _rounded(vae: VAE) -> VAE:
    return vae.half().float().eval()
