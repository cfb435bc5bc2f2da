"""What the latents of a run are worth: classifiers, the likelihood, and what is reconstructed."""

from typing import Any

import numpy as np
import torch

from vaekit.errors import UserError
from vaekit.evaluation import probes
from vaekit.evaluation.probes import Split
from vaekit.evaluation.quality import active_dimensions, kl_of_dimensions, ssim
from vaekit.images import baselines
from vaekit.images.image_set import Images
from vaekit.images.mapped import PixelArray
from vaekit.images.pixels import as_floats, psnr
from vaekit.models.likelihoods import LIKELIHOODS, bits_per_dimension
from vaekit.models.marginal import marginal_nats
from vaekit.models.vae import VAE
from vaekit.progress import Progress
from vaekit.runs.latents import Latents
from vaekit.training.noise import Stream, normal_noise

BATCH_SIZE = 500
IMAGES_AT_ONCE = 50
_SEED = 0


def measure_worth(
    vae: VAE, latents: Latents, images: Images, num_samples: int, num_images: int
) -> dict[str, Any]:
    """Measure what `latents` of `images` are worth, as evaluation/evaluation.json says it.

    Classifiers on latents, on principal components and on pixels; the KL of each dimension; the
    likelihood of `num_images` test images by `num_samples` samples of each; how much
    reconstructions look like test images. What labels are needed for is left out without them.
    """
    check_counts(num_samples, num_images)
    train, test = images.train.pixels, images.test.pixels
    components = baselines.fit_components(train, vae.latent_dim)
    return {
        "probes": _probe(latents, train, test, components),
        "dimensions": _dimensions(latents),
        "likelihood": _likelihood(vae, test, num_samples, num_images),
        "reconstruction": _reconstruction(vae, test, components),
    }


def check_counts(num_samples: int, num_images: int) -> None:
    """Raise `UserError` for numbers of which nothing can be measured."""
    for name, count in (("samples", num_samples), ("images", num_images)):
        if count < 1:
            raise UserError(f"{name} {count}: expected at least 1")


def _probe(
    latents: Latents,
    train: PixelArray,
    test: PixelArray,
    components: baselines.Components,
) -> dict[str, Any]:
    """Classifiers on means of latents, on as many principal components, and on pixels."""
    found: dict[str, Any] = {"missing": None, "num_train": 0, "num_test": 0, "features": []}
    if latents.train_labels is None or latents.test_labels is None:
        return found | {"missing": "the images have no labels"}
    num_values = train[0].size
    of_train = probes.some_rows(len(train), num_values)
    of_test = probes.some_rows(len(test), num_values)
    train_labels, test_labels = latents.train_labels[of_train], latents.test_labels[of_test]
    if len(np.unique(train_labels)) < 2:
        return found | {"missing": "the training images are of one class"}
    features = {"latents": (latents.train_means[of_train], latents.test_means[of_test])}
    if len(components.directions):
        features["PCA"] = (
            baselines.project(train[of_train], components),
            baselines.project(test[of_test], components),
        )
    features["pixels"] = (baselines.as_rows(train[of_train]), baselines.as_rows(test[of_test]))
    with Progress("classifiers", len(features), "kinds of features") as progress:
        for name, (train_features, test_features) in features.items():
            splits = Split(train_features, train_labels), Split(test_features, test_labels)
            found["features"].append(
                {
                    "name": name,
                    "numbers": train_features.shape[1],
                    **probes.probe(*splits)._asdict(),
                    "by_labels": [each._asdict() for each in probes.accuracy_by_labels(*splits)],
                }
            )
            progress.advance(1)
    return found | {"num_train": len(of_train), "num_test": len(of_test)}


def _dimensions(latents: Latents) -> list[dict[str, Any]]:
    kl, active = kl_of_dimensions(latents.test), active_dimensions(latents.test)
    return [
        {"kl": float(nats), "active": bool(is_active)}
        for nats, is_active in zip(kl, active, strict=True)
    ]


def _likelihood(vae: VAE, test: PixelArray, num_samples: int, num_images: int) -> dict[str, Any]:
    count = min(num_images, len(test))
    chosen = np.arange(count) * len(test) // count
    estimates, bounds = [], []
    with Progress("likelihood", count, "images") as progress:
        for start in range(0, count, IMAGES_AT_ONCE):
            images = as_floats(torch.from_numpy(test[chosen[start : start + IMAGES_AT_ONCE]]))
            shape = (num_samples, len(images), vae.latent_dim)
            noise = normal_noise(shape, _SEED, Stream.EVALUATION, start, images.device)
            found = marginal_nats(vae, images, noise, BATCH_SIZE)
            estimates.append(found.estimate)
            bounds.append(found.bound)
            progress.advance(len(images))
    nats = torch.cat(estimates).double()
    mean = float(nats.mean())
    is_of_levels = vae.likelihood == LIKELIHOODS["logistic"]
    return {
        "nats": mean,
        "standard_error": float(nats.std(correction=0)) / count**0.5,
        "bits_per_dimension": bits_per_dimension(mean, test[0].size) if is_of_levels else None,
        "bound": float(torch.cat(bounds).double().mean()),
        "num_images": count,
        "num_samples": num_samples,
        "unit": vae.likelihood.unit,
    }


@torch.no_grad()
def _reconstruction(
    vae: VAE, test: PixelArray, components: baselines.Components
) -> list[dict[str, Any]]:
    """How like test images their reconstructions are, from latents and from components."""
    squares, similarities = np.zeros(2), np.zeros(2)
    has_ssim = True
    for start in range(0, len(test), BATCH_SIZE):
        batch = test[start : start + BATCH_SIZE]
        images = as_floats(torch.from_numpy(batch))
        rows = baselines.project(batch, components) @ components.directions + components.mean
        by_model = vae.decode(vae.encode(images).mean).numpy()
        by_pca = rows.reshape(batch.shape)
        for index, others in enumerate((by_model, by_pca)):
            squares[index] += np.square(others - images.numpy(), dtype=np.float64).sum()
            similarity = ssim(images.numpy(), others)
            has_ssim = similarity is not None
            similarities[index] += 0 if similarity is None else similarity.sum()
    names = ("this model", f"PCA with {len(components.directions)} components")
    return [
        {
            "name": name,
            "mse": float(mse),
            "psnr": psnr(float(mse)),
            "ssim": float(similarity) if has_ssim else None,
        }
        for name, mse, similarity in zip(
            names, squares / test.size, similarities / len(test), strict=True
        )
    ]
