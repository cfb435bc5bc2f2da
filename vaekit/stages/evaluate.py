"""What the latents of a run are worth: measured, written, put in a table."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from vaekit.errors import UserError
from vaekit.evaluation import probes
from vaekit.evaluation.probes import Split
from vaekit.evaluation.quality import active_dimensions, kl_of_dimensions, ssim
from vaekit.images import baselines
from vaekit.images.mapped import PixelArray
from vaekit.images.pixels import as_floats, psnr
from vaekit.models.likelihoods import LIKELIHOODS, bits_per_dimension
from vaekit.models.marginal import marginal_nats
from vaekit.models.vae import VAE
from vaekit.progress import Progress
from vaekit.runs.evaluation import CLASSIFIERS, FORMAT_VERSION
from vaekit.runs.latents import Latents
from vaekit.runs.products import EVALUATION
from vaekit.runs.run import Run
from vaekit.stages.latents import extract_missing_latents
from vaekit.storage.sealed import write_sealed
from vaekit.training.noise import Stream, normal_noise
from vaekit.training.process import use_all_cores

NUM_SAMPLES = 500
NUM_IMAGES = 200  # whose likelihood is estimated
BATCH_SIZE = 500
IMAGES_AT_ONCE = 50
_SEED = 0


def evaluate(run: Run, num_samples: int = NUM_SAMPLES, num_images: int = NUM_IMAGES) -> None:
    """Measure what the latents of a run are worth; the stage behind `vaekit evaluate`.

    Where the run has no latents, they are made first. Writes evaluation/evaluation.json:
    classifiers on latents, on principal components and on pixels; the KL of each dimension; the
    likelihood of `num_images` test images by `num_samples` samples of each; how much
    reconstructions look like test images. What labels are needed for is left out without them.
    """
    for name, count in (("samples", num_samples), ("images", num_images)):
        if count < 1:
            raise UserError(f"{name} {count}: expected at least 1")
    folder = run.folder
    with folder.lock():
        extract_missing_latents(run, keep_on_device=False)
        use_all_cores(torch.device("cpu"))
        latents, vae = run.latents, run.weights.vae
        train, test = run.images.train.pixels, run.images.test.pixels
        components = baselines.fit_components(train, vae.latent_dim)
        evaluation = {
            "format_version": FORMAT_VERSION,
            "model_sha256": run.sha256("weights"),
            "latents_sha256": latents.sha256,
            "probes": _probe(latents, train, test, components),
            "dimensions": _dimensions(latents),
            "likelihood": _likelihood(vae, test, num_samples, num_images),
            "reconstruction": _reconstruction(vae, test, components),
        }
        path = EVALUATION.path(folder)
        path.parent.mkdir(exist_ok=True)
        write_sealed(path, evaluation)
        run.forget("evaluation")
    for line in lines(evaluation):
        print(line)
    print(f"evaluation: {path}   next: vaekit report {folder.quoted}", flush=True)


def lines(evaluation: dict[str, Any]) -> Iterator[str]:
    """What a terminal shows of it."""
    found = evaluation["probes"]
    if found["missing"]:
        yield f"no classifiers: {found['missing']}"
    else:
        yield (
            f"accuracy on {found['num_test']:,} test images, fitted on {found['num_train']:,}; "
            f"with few labels an RBF SVM's mean over {probes.NUM_DRAWS} draws ± their spread"
        )
        few = [f"{each['num_labels']:,} labels" for each in found["features"][0]["by_labels"]]
        yield _row("", "numbers", "linear SVM", "RBF SVM", "k-NN", *few)
        for each in found["features"]:
            yield _row(
                each["name"],
                f"{each['numbers']:,}",
                *(f"{each[classifier]:.4f}" for classifier in CLASSIFIERS),
                *(f"{few['mean']:.3f} ± {few['spread']:.3f}" for few in each["by_labels"]),
            )
    kl = [each["kl"] for each in evaluation["dimensions"]]
    num_active = sum(each["active"] for each in evaluation["dimensions"])
    nats = ", ".join(f"{value:.2f}" for value in sorted(kl, reverse=True))
    yield f"{num_active} of {len(kl)} latent dimensions are active; KL of each in nats: {nats}"
    yield likelihood_line(evaluation["likelihood"])
    for each in evaluation["reconstruction"]:
        figures = [f"MSE {each['mse']:.4f}"]
        figures += [] if each["psnr"] is None else [f"PSNR {each['psnr']:.1f} dB"]
        figures += [] if each["ssim"] is None else [f"SSIM {each['ssim']:.3f}"]
        yield f"test images reconstructed by {each['name']}: {', '.join(figures)}"


def likelihood_line(likelihood: dict[str, Any]) -> str:
    bits = likelihood["bits_per_dimension"]
    return (
        f"minus log-likelihood {likelihood['nats']:.2f} ± {likelihood['standard_error']:.2f} "
        f"({likelihood['unit']}{'' if bits is None else f'; {bits:.3f} bits per dimension'}), "
        f"importance-weighted with {likelihood['num_samples']:,} samples of "
        f"{likelihood['num_images']:,} test images, whose ELBO is {likelihood['bound']:.2f}"
    )


def _row(name: str, *cells: str) -> str:
    return f"{name:<8}" + "".join(f"{cell:>15}" for cell in cells)


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
    for name, (train_features, test_features) in features.items():
        print(f"fitting classifiers on {name}, {train_features.shape[1]:,} numbers", flush=True)
        splits = Split(train_features, train_labels), Split(test_features, test_labels)
        found["features"].append(
            {
                "name": name,
                "numbers": train_features.shape[1],
                **probes.probe(*splits)._asdict(),
                "by_labels": [each._asdict() for each in probes.accuracy_by_labels(*splits)],
            }
        )
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
