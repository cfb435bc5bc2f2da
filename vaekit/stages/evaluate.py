"""What the latents of a run are worth: measured, written, put in a table."""

from collections.abc import Iterator
from typing import Any

import torch

from vaekit.evaluation import probes
from vaekit.runs.evaluation import CLASSIFIERS, FORMAT_VERSION
from vaekit.runs.products import EVALUATION
from vaekit.runs.run import Run
from vaekit.runs.worth import check_counts
from vaekit.stages.latents import extract_missing_latents
from vaekit.storage.sealed import write_sealed
from vaekit.training.process import use_all_cores


def evaluate(run: Run, num_samples: int, num_images: int) -> None:
    """Measure what the latents of a run are worth; the stage behind `vaekit evaluate`.

    Where the run has no latents, they are made first. Writes evaluation/evaluation.json: what
    `Run.evaluate` measures.
    """
    check_counts(num_samples, num_images)
    _ = run.config  # a folder without one is no run, and is not made
    folder = run.folder
    with folder.lock():
        extract_missing_latents(run, keep_on_device=False)
        use_all_cores(torch.device("cpu"))
        evaluation = {
            "format_version": FORMAT_VERSION,
            "model_sha256": run.sha256("weights"),
            "latents_sha256": run.latents.sha256,
            **run.evaluate(num_samples, num_images),
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
