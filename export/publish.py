"""A run as others get it: weights, settings, bundle, pictures and a model card, in one folder."""

import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from PIL import Image

from vaekit import __version__
from vaekit.config import IN_MEMORY, TrainConfig
from vaekit.errors import UserError
from vaekit.export.manifest import MANIFEST, read_manifest, require_intact
from vaekit.images.preparation import RESIZE_FILTER
from vaekit.runs.display import pictures_of
from vaekit.runs.products import SVM, SVM_CONFIG, SVM_METRICS
from vaekit.runs.run import Run
from vaekit.settings import write_config
from vaekit.storage.files import read_json, temporary_path, write_json, write_text
from vaekit.training.state import kept_row

BUNDLE = "onnx"
CARD_TEMPLATE = Path(__file__).with_name("card.md.jinja")
KINDS = {1: "grey", 2: "grey and transparent", 3: "colour", 4: "colour and transparent"}
OF_SVM = (SVM, SVM_CONFIG, SVM_METRICS)
OF_A_START = ("command_line",)  # what is not told of one: it names places of the machine

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def publish(run: Run, to: str, *, upload: bool = False) -> None:
    """Put a run, with its bundle, into a new folder, or into a repository `owner/name` of the Hub.

    The files are listed. Only with `upload` do they leave the machine, into a repository that is
    private where it is new; without it that is all. Raises `UserError` where the run has no bundle
    of its present weights, the folder holds something, or the Hub says no.
    """
    bundle = require_bundle(run)
    if not is_repository(to):
        folder = Path(to).expanduser()
        require_new(folder)
        staged = temporary_path(folder)
        shutil.rmtree(staged, ignore_errors=True)  # of one that was killed
        staged.mkdir(parents=True)
        write_publication(run, bundle, staged, str(folder))
        staged.replace(folder)
        listed(folder)
        print(f"published: {folder}   next: vaekit.Run.from_hub({str(folder)!r})", flush=True)
        return
    with TemporaryDirectory() as place:
        write_publication(run, bundle, Path(place), to)
        listed(Path(place))
        if upload:
            put_on_the_hub(Path(place), to)
        else:
            print(
                f"nothing was uploaded; `vaekit publish {run.folder.quoted} --to {to} --upload` "
                f"puts these files there, and ./{to} is a folder",
                flush=True,
            )


def is_repository(to: str) -> bool:
    """Whether it names one of the Hub: two words and a slash, and no folder that is there."""
    return _REPOSITORY.fullmatch(to) is not None and not Path(to).exists()


def require_bundle(run: Run) -> Path:
    """The bundle of the run, whole and of its present weights."""
    bundle = run.folder.path / BUNDLE
    again = f"make it with `vaekit export {run.folder.quoted}`"
    _ = run.weights
    if not (bundle / MANIFEST).is_file():
        raise UserError(f"{run.folder.path}: no bundle yet, which is published with it; {again}")
    manifest = read_manifest(bundle)
    require_intact(bundle, manifest)
    own = (run.sha256("weights"), run.sha256("svm"))
    if (manifest.model_sha256, manifest.svm_sha256) != own:
        raise UserError(f"{bundle}: of other weights or another SVM than the run has now; {again}")
    return bundle


def require_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--to {folder}: it is there already; give a new or an empty folder")


def write_publication(run: Run, bundle: Path, folder: Path, repository: str) -> None:
    """Write all that is published into `folder`, which is empty."""
    name = run.folder.path.resolve().name
    manifest = read_json(bundle / MANIFEST)
    copy_files(bundle, [MANIFEST, *manifest["files"]], folder / BUNDLE)
    names = [run.folder.model.name, run.folder.metrics.name]
    if run.has_svm:
        _ = run.svm
        names += [each.files for each in OF_SVM]
    copy_files(run.folder.path, names, folder)
    write_config(folder / run.folder.config.name, without_places(run.config, name))
    starts = [{k: it for k, it in each.items() if k not in OF_A_START} for each in run.environment]
    write_json(folder / run.folder.environment.name, starts)
    pictures = {}
    for title, path in pictures_of(run.folder):
        pictures[title] = path.relative_to(run.folder.path).as_posix()
        (folder / pictures[title]).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / pictures[title])
    write_json(folder / "config.json", model_facts(run))
    write_json(folder / "preprocessor_config.json", preparation_facts(run))
    write_text(folder / "README.md", str(card(run, manifest, pictures, name, repository)))


def copy_files(source: Path, names: Iterable[str], target: Path) -> None:
    """Those that are named, and nothing else that may lie beside them."""
    for name in names:
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def without_places(config: TrainConfig, name: str) -> TrainConfig:
    """The settings of a run without the folders of the machine that it was trained on."""
    root = config.data.root
    if root != IN_MEMORY and Path(root).expanduser().is_absolute():
        root = Path(root).name
    init_from = None if config.init_from is None else Path(config.init_from).name
    return replace(config, run=name, data=replace(config.data, root=root), init_from=init_from)


def model_facts(run: Run) -> dict[str, Any]:
    """config.json, in the words of the Hub's other models."""
    vae, names = run.weights.vae, run.weights.class_names
    channels, height, width = vae.image_shape
    return {
        "model_type": "vaekit",
        "library_name": "vaekit",
        "vaekit_version": __version__,
        "architecture": vae.config.architecture,
        "likelihood": vae.config.likelihood,
        "latent_dim": vae.latent_dim,
        "num_channels": channels,
        "image_size": [height, width],
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }


def preparation_facts(run: Run) -> dict[str, Any]:
    """preprocessor_config.json: pixels stay 0 to 255, since scaling is inside the graphs."""
    channels, height, width = run.weights.vae.image_shape
    return {
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": int(Image.Resampling[RESIZE_FILTER.upper()]),
        "do_rescale": False,
        "do_normalize": False,
        "do_convert_rgb": channels == 3,
        "num_channels": channels,
    }


def card(
    run: Run, manifest: dict[str, Any], pictures: dict[str, str], name: str, repository: str
) -> ModelCard:
    """The model card: what it is, how good, of which data, and how it is used."""
    weights, data = run.weights, run.config.data
    channels = weights.vae.image_shape[0]
    accuracy, figures, epochs = manifest["metrics"].get("svm_accuracy"), {}, ""
    if run.metrics:
        row = kept_row(run.metrics)
        epochs = f", {row['epoch']} epochs"
        losses = ("loss", "loss"), ("reconstruction", "reconstruction"), ("KL", "kl")
        figures = {f"test {title}": f"{row[f'test_{name}']:.2f}" for title, name in losses}
    if accuracy is not None:
        figures["test accuracy of the SVM"] = f"{accuracy:.4f}"
    facts = ModelCardData(
        library_name="vaekit",
        tags=["vae", "variational-autoencoder", "onnx", "image-feature-extraction"],
        pipeline_tag="image-feature-extraction",
        model_name=name,
        eval_results=None
        if accuracy is None
        else [
            EvalResult(
                task_type="image-classification",
                dataset_type=data.name,
                dataset_name=data.name,
                metric_type="accuracy",
                metric_value=accuracy,
            )
        ],
    )
    made: ModelCard = ModelCard.from_template(
        facts,
        template_str=CARD_TEMPLATE.read_text(encoding="utf-8"),
        name=name,
        kind=KINDS[channels],
        unit=weights.vae.likelihood.unit,
        latent_dim=weights.vae.latent_dim,
        vaekit=__version__,
        class_names=weights.class_names,
        has_svm=run.has_svm,
        pictures=pictures,
        figures=figures,
        repository=repository if is_repository(repository) else f"owner/{name}",
        image=manifest["image"],
        channels=channels,
        data=f"Trained on `{data.name}`{epochs}.",
    )
    return made


def listed(folder: Path) -> None:
    """Say what is published, file by file."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"{path.stat().st_size:>12,}  {path.relative_to(folder).as_posix()}")


def put_on_the_hub(folder: Path, repository: str) -> None:
    """Put the files of `folder` into a repository, as one commit."""
    api = HfApi(library_name="vaekit", library_version=__version__)
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=f"vaekit {__version__}"
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"--to {repository}: the Hub did not take it ({why}); log in with `hf auth login`, "
            f"check the name and the network, and give the same command again"
        ) from error
    print(
        f"published: {commit.repo_url}   next: vaekit.Run.from_hub({repository!r}, "
        f"revision={commit.oid!r})",
        flush=True,
    )
