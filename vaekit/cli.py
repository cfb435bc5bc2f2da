"""The command line: `vaekit train | latents | svm | report | export | explore | doctor ...`.

Heavy libraries are imported by the command that needs them, so that help and bad arguments
answer at once.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from vaekit.config import (
    AS_TRAINED,
    MAX_TRAIN,
    Auto,
    ClassWeight,
    DataPlace,
    SvmBackendFlag,
    SvmConfig,
    TrainConfig,
    check_jobs,
)
from vaekit.errors import UserError, user_errors_in_one_line
from vaekit.storage.files import user_path


def latents(run: str, data: DataPlace = AS_TRAINED) -> None:
    """Encode the images of a run: mean and log-variance of each.

    As in `vaekit latents runs/mine`.

    Args:
        run: A trained run folder.
        data: Where its images lie now.
    """
    from vaekit.runs.run import Run
    from vaekit.stages.latents import extract_latents

    extract_latents(Run(run, data.root))


def svm(
    run: str,
    C: float = SvmConfig.C,
    gamma: float = SvmConfig.gamma,
    log_variances: float | Auto = SvmConfig.log_variances,
    class_weight: ClassWeight | None = None,
    max_train: int | None = MAX_TRAIN,
    backend: SvmBackendFlag = "auto",
    jobs: int | None = None,
    cluster: str | None = None,
    data: DataPlace = AS_TRAINED,
) -> None:
    """Fit an SVM on the training latents and measure it on the test latents.

    As in `vaekit svm runs/mine --class_weight balanced`.

    Args:
        run: A run folder. Where it has no latents yet, they are made first.
        C: Penalty of a margin violation.
        gamma: Inverse width of the kernel, in units of 1 / number of features that vary, of which
            one counts as its squared weight.
        log_variances: Weight of log-variances, standardised, beside means (auto: 0.5 where fewer
            than 10,000 latents are fitted, else 1).
        class_weight: balanced gives rare classes the weight of common ones (default: none).
        max_train: Latents to fit it on at most, of more a draw in which every class has its share;
            the time grows with their square. null takes all.
        backend: What fits it; auto takes cuML where a GPU is usable, and scikit-learn elsewhere.
        jobs: Pairs of classes that scikit-learn fits at a time (default: all cores at hand).
        cluster: Whose workers fit them instead: dask://HOST:PORT, or ray for the cluster that this
            machine is part of.
        data: Where its images lie now, should latents be missing.
    """
    config = SvmConfig(C, class_weight, max_train, log_variances, gamma)
    check_jobs(jobs)
    from vaekit.runs.run import Run
    from vaekit.stages.svm import fit_svm

    fit_svm(Run(run, data.root), config, backend, jobs, cluster)


def report(run: str, data: DataPlace = AS_TRAINED) -> None:
    """Put everything a run has made on one HTML page.

    As in `vaekit report runs/mine`.

    Args:
        run: A trained run folder.
        data: Where its images lie now.
    """
    from vaekit.report.page import write_report
    from vaekit.runs.run import Run

    write_report(Run(run, data.root))


def evaluate(run: str, samples: int = 500, images: int = 200, data: DataPlace = AS_TRAINED) -> None:
    """Measure what the latents of a run are worth, beside PCA and raw pixels.

    As in `vaekit evaluate runs/mine`.

    Args:
        run: A run folder. Where it has no latents yet, they are made first.
        samples: Of each image, to estimate its likelihood by.
        images: Test images whose likelihood is estimated.
        data: Where its images lie now.
    """
    from vaekit.runs.run import Run
    from vaekit.stages.evaluate import evaluate as evaluate_run

    evaluate_run(Run(run, data.root), samples, images)


def generate(run: str, count: int = 64, output: str = "generated.png", seed: int = 0) -> None:
    """Generate new images: one picture, an array, or a file each.

    As in `vaekit generate runs/mine --count 64 --output grid.png`.

    Args:
        run: A trained run folder.
        count: How many images.
        output: The .png file to write, or a .npy file, or a folder for a PNG each.
        seed: Other seeds give other images.
    """
    from vaekit.runs.run import Run
    from vaekit.stages.generate import generate as generate_images

    generate_images(Run(run), count, Path(output), seed)


def reconstruct(
    run: str,
    images: list[str],
    output: str = "reconstructed.png",
    skip_unreadable: bool = False,
) -> None:
    """Decode image files again from their latents.

    As in `vaekit reconstruct runs/mine my_images`.

    Args:
        run: A trained run folder.
        images: Image files, and folders of them.
        output: The .png file to write, with the files above, or a .npy file, or a folder.
        skip_unreadable: Go on without files that can't be read, instead of stopping.
    """
    from vaekit.runs.run import Run
    from vaekit.stages.generate import reconstruct as reconstruct_images

    paths = [Path(image) for image in images]
    reconstruct_images(Run(run), paths, Path(output), skip_unreadable)


def interpolate(
    run: str, first: str, last: str, steps: int = 8, output: str = "interpolated.png"
) -> None:
    """Go from one image file to another in the latent space.

    As in `vaekit interpolate runs/mine a.png b.png`.

    Args:
        run: A trained run folder.
        first: An image file, of which the first image is the reconstruction.
        last: An image file, of which the last image is the reconstruction.
        steps: How many images, those two among them.
        output: The .png file to write, or a .npy file, or a folder for a PNG each.
    """
    from vaekit.runs.run import Run
    from vaekit.stages.generate import interpolate as interpolate_images

    interpolate_images(Run(run), Path(first), Path(last), steps, Path(output))


def encode(
    run: str,
    images: Sequence[str],
    output: str | None = None,
    log_variances: bool = False,
    skip_unreadable: bool = False,
) -> None:
    """Write the latents of image files as a table; it needs no labels and no SVM.

    As in `vaekit encode runs/mine my_images --output latents.csv`.

    Args:
        run: A trained run folder.
        images: Image files, and folders of them; without one the images of the run.
        output: The .csv, .parquet or .npy file to write (default: CSV on standard output).
        log_variances: Add the log-variance of each latent dimension to its mean.
        skip_unreadable: Go on without files that can't be read, instead of stopping.
    """
    from vaekit.runs.run import Run
    from vaekit.stages.encode import encode as encode_images

    encode_images(
        Run(run),
        [Path(image) for image in images],
        None if output is None else Path(output),
        log_variances=log_variances,
        skip_unreadable=skip_unreadable,
    )


def predict(
    run: str, images: list[str], latents: bool = False, skip_unreadable: bool = False
) -> None:
    """Classify image files; CSV on standard output.

    As in `vaekit predict runs/mine my_images > labels.csv`.

    Args:
        run: A run folder with an SVM.
        images: Image files, and folders of them.
        latents: Add the mean and log-variance of each image.
        skip_unreadable: Go on without files that can't be read, instead of stopping.
    """
    from vaekit.runs.run import Run
    from vaekit.stages.predict import predict_files

    predict_files(Run(run), [Path(image) for image in images], latents, skip_unreadable)


def score(
    run: str,
    images: list[str],
    output: str | None = None,
    k: int = 10,
    false_alarms: float = 0.01,
    skip_unreadable: bool = False,
    data: DataPlace = AS_TRAINED,
) -> None:
    """Say how strange image files are beside those that a run was trained on.

    As in `vaekit score runs/mine my_images`.

    Args:
        run: A run folder with latents.
        images: Image files, and folders of them.
        output: The .csv file to write, and beside it a page, .html, that shows the strangest and
            the most typical (default: CSV on standard output, and no page).
        k: Training images from which the distance is taken.
        false_alarms: Share of images like the test images that may be called strange.
        skip_unreadable: Go on without files that can't be read, instead of stopping.
        data: Where the images of the run lie now.
    """
    from vaekit.report.scores import write_scores_page
    from vaekit.runs.run import Run
    from vaekit.stages.score import score_files

    place, trained = None if output is None else Path(output), Run(run, data.root)
    paths = [Path(image) for image in images]
    scored = score_files(trained, paths, place, k, false_alarms, skip_unreadable)
    if place is not None:
        write_scores_page(place.with_suffix(".html"), trained, scored.inputs, scored.scores)


def neighbours(
    run: str,
    images: list[str],
    k: int = 9,
    output: str = "neighbours.png",
    skip_unreadable: bool = False,
    data: DataPlace = AS_TRAINED,
) -> None:
    """Find the images of a run that are most like image files; CSV on standard output.

    As in `vaekit neighbours runs/mine my_images`.

    Args:
        run: A run folder with latents.
        images: Image files, and folders of them.
        k: How many images for each.
        output: The PNG file to write, a row an image.
        skip_unreadable: Go on without files that can't be read, instead of stopping.
        data: Where the images of the run lie now.
    """
    from vaekit.runs.run import Run
    from vaekit.stages.neighbours import find_neighbours

    paths = [Path(image) for image in images]
    find_neighbours(Run(run, data.root), paths, k, Path(output), skip_unreadable)


def export(
    run: str,
    weights: Literal["fp32", "fp16", "int8"] = "fp32",
    check: bool = False,
    data: DataPlace = AS_TRAINED,
) -> None:
    """Make the ONNX bundle of a run, or check a bundle.

    As in `vaekit export runs/mine --weights fp16`.

    Args:
        run: A trained run folder; with --check a bundle, as runs/mnist/onnx.
        weights: How weights are stored; fp16 is half the size and still computed in float32; int8
            is a quarter, and computes the linear layers in eight bits, several times as fast.
        check: Make nothing; check that a bundle is whole and gives the right numbers here.
        data: Where the images of the run lie now.
    """
    if check:
        from vaekit.export import verify

        verify.check(Path(run))
    else:
        from vaekit.export.bundle import export_run
        from vaekit.runs.run import Run

        export_run(Run(run, data.root), weights)


def explore(run: str, port: int = 8000, output: str | None = None) -> None:
    """Show the bundle of a run in the browser: draw, classify, move through the latent space.

    As in `vaekit explore runs/mine`.

    Args:
        run: A run folder with a bundle.
        port: Of 127.0.0.1; 0 takes any that is free.
        output: Show nothing; write the page and the bundle into this folder, for any web server.
    """
    from vaekit.export import explore

    if output is None:
        explore.explore(Path(run), port)
    else:
        explore.write_site(Path(run), user_path("--output", output))


def publish(run: str, to: str | None = None, upload: bool = False) -> None:
    """Put a run with its bundle and a model card into a folder, or onto the Hub.

    As in `vaekit publish runs/mine --to ./published`.

    Args:
        run: A run folder with a bundle.
        to: A new folder, or owner/name, a repository of the Hub. It must be given.
        upload: Let the files that are listed go to the Hub; without it they stay here.
    """
    if to is None:
        raise UserError("--to: is missing; give a new folder, or owner/name of the Hub")
    from vaekit.export.publish import publish as publish_run
    from vaekit.runs.run import Run

    publish_run(Run(run), to, upload=upload)


def doctor(runs: Sequence[str]) -> None:
    """Say what is wrong with runs, or with this machine, and what to do about it.

    As in `vaekit doctor runs/mine`.

    Args:
        runs: Run folders; without one the machine is examined.
    """
    from vaekit.doctor.doctor import doctor as examine

    examine([Path(run) for run in runs])


COMMANDS: dict[str, Callable[..., object]] = {
    "train": TrainConfig,
    "latents": latents,
    "svm": svm,
    "report": report,
    "evaluate": evaluate,
    "generate": generate,
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "encode": encode,
    "predict": predict,
    "score": score,
    "neighbours": neighbours,
    "export": export,
    "explore": explore,
    "publish": publish,
    "doctor": doctor,
}


OVERVIEW = """usage: vaekit VERB [options]

From a folder of images to a bundle that runs anywhere:

  vaekit train --data.name folder --data.root my_images --run runs/mine
  vaekit latents runs/mine
  vaekit svm runs/mine            # where the images have classes
  vaekit report runs/mine         # runs/mine/report.html shows how good all this is
  vaekit export runs/mine         # runs/mine/onnx

Verbs, each with its settings and an example under `vaekit VERB --help`:
"""


def overview() -> str:
    """What `vaekit --help` shows, on one screen."""
    said = {name: str(verb.__doc__).split("\n")[0] for name, verb in COMMANDS.items()}
    verbs = (f"  {name:<11} {line.split('. ')[0].rstrip('.')}" for name, line in said.items())
    return "\n".join([OVERVIEW, *verbs])


def main(arguments: list[str] | None = None) -> None:
    """Run one command; a user's mistake is one line and exit code 2."""
    with user_errors_in_one_line():
        given = sys.argv[1:] if arguments is None else arguments
        if given in (["-h"], ["--help"]):
            print(overview())
            return
        from vaekit.settings import parse  # which stands on packages that may be missing

        # To describe the flags of every verb would take most of the time of a short command.
        named = {name: COMMANDS[name] for name in given[:1] if name in COMMANDS}
        parsed = parse(named or COMMANDS, arguments, prog="vaekit")
        if isinstance(parsed, TrainConfig):
            from vaekit.train import train

            train(parsed)


if __name__ == "__main__":
    main()
