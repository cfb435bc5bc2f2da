"""Whether a run is whole: every product read as a stage reads it, and what spans several."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Size

from vaekit.config import (
    SvmConfig,
    TrainConfig,
    fields_by_flag,
    settled,
    to_dict,
    trajectory_differences,
)
from vaekit.doctor.findings import Finding
from vaekit.errors import UserError
from vaekit.export.manifest import (
    MANIFEST,
    Manifest,
    is_own_name,
    read_manifest_file,
    require_complete,
    require_sha256,
)
from vaekit.models.vae import VAE
from vaekit.runs.checkpoints import load_checkpoint
from vaekit.runs.folder import RunFolder
from vaekit.runs.latent_parts import PARTS
from vaekit.runs.latents import assemble, latents_sha256, read_part
from vaekit.runs.metrics import Row
from vaekit.runs.products import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    LATENTS,
    MAP,
    METRICS,
    PRODUCTS,
    REPORT,
    SVM,
    SVM_CONFIG,
    SVM_METRICS,
    WEIGHTS,
    Origin,
    Parts,
    Product,
    fault_of_origins,
    remedy_text,
)
from vaekit.runs.run import fault_against_config, fault_against_weights
from vaekit.settings import from_dict
from vaekit.storage.damage import Damaged, as_written
from vaekit.storage.files import file_sha256

MADE_BESIDES = {".lock", "trackers"}  # and read by no stage
OLD, TEMPORARY = ".old-", ".tmp"  # how the names begin of what only a killed writer leaves
WEIGHTS_OF = ("model.", "ema.", "kept.")  # what a checkpoint has of each parameter
MOMENTS = ("exp_avg", "exp_avg_sq")


class Reading(NamedTuple):
    """A file and what its reader gives, or what is wrong; neither where there is no file."""

    path: Path
    value: Any = None
    fault: str | None = None
    is_whole: bool = False


class CheckpointSummary(NamedTuple):
    """A checkpoint without the values of its tensors."""

    step: int
    config: TrainConfig
    images_sha256: str
    metrics: list[Row]
    shapes: dict[str, Size]


def read_summary(path: Path) -> CheckpointSummary:
    step, tensors, metadata = load_checkpoint(path)
    with as_written():
        config = from_dict(TrainConfig, metadata["config"])
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return CheckpointSummary(step, config, metadata["images_sha256"], metadata["metrics"], shapes)


def _bundle(folder: str, flag: str = "") -> Product:
    again = f"make it again with `vaekit export {{run}}{flag}`"
    return Product(
        folder,
        f"{folder}/{MANIFEST}",
        read_manifest_file,
        lambda manifest: f"names {len(manifest.files)} files",
        again,
        required_by=(f"{folder}/*",),
        made_of={
            "weights": Origin(lambda manifest: manifest.model_sha256, again),
            "svm": Origin(lambda manifest: manifest.svm_sha256, again),
        },
        parts=Parts(
            lambda manifest: manifest.files, require_sha256, lambda _: "as the manifest says"
        ),
    )


BUNDLES = (
    _bundle("onnx"),
    _bundle("onnx-fp16", " --weights fp16"),
    _bundle("onnx-int8", " --weights int8"),
)
# The files of checkpoints are large, and all are held at once.
EXAMINED = tuple(
    each._replace(read=read_summary) if each is CHECKPOINTS else each
    for each in (*PRODUCTS, *BUNDLES)
)
FOLDERS = sorted({each.files.partition("/")[0] for each in EXAMINED if "/" in each.files})


class Readings:
    """All products of a run, as far as they can be read."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._readings = {
            product.name: [
                read(path, partial(product.read, path), remedy_text(product.remedy, run))
                for path in product.paths(run)
            ]
            for product in EXAMINED
        }

    def all(self, product: Product) -> list[Reading]:
        return self._readings[product.name]

    def one(self, product: Product) -> Reading:
        (reading,) = self._readings[product.name]
        return reading

    def value(self, product: Product) -> Any:
        return self.one(product).value

    @cached_property
    def present(self) -> dict[str, str]:
        """What others made of a product are bound to, of those that can be read."""
        metadata = self.value(LATENTS)
        hashes = {} if metadata is None else {LATENTS.name: latents_sha256(metadata)}
        for product in (WEIGHTS, SVM):
            if self.one(product).is_whole:
                hashes[product.name] = file_sha256(product.path(self.run))
        return hashes

    @property
    def newest(self) -> CheckpointSummary | None:
        """The checkpoint from which training would go on."""
        readings = reversed(self.all(CHECKPOINTS))
        return next((each.value for each in readings if each.value is not None), None)


def examine_run(run_path: Path) -> list[Finding]:
    """Every file of a run that is whole, and all that is wrong, stage by stage.

    Nothing is written, run or made anew, and no image set is loaded; of decoded images the files
    are read. Raises `UserError` where there is no run at all.
    """
    run = RunFolder(run_path)
    if not run.path.is_dir() or not any(run.path.iterdir()):
        run.require_config()
    lock = read(run.path / ".lock", run.is_being_written)
    known = Readings(run)
    faults = {name: fault for name in FOLDERS if (fault := fault_of_folder(run.path / name))}
    findings = [*check_lock(run, lock)]
    findings += [problem(run, run.path / name, fault) for name, fault in faults.items()]
    for product in EXAMINED:
        if product.files.partition("/")[0] not in faults:
            findings += check_product(known, product)
    findings += [note for note in notes(known) if note.subject not in faults]
    findings += check_images(known.value(CONFIG))
    examined = {finding.subject for finding in findings}
    return [*findings, *list_others(run, run.path, examined, bool(lock.value))]


def read(path: Path, reader: Callable[[], Any], remedy: str = "") -> Reading:
    """What a stage would read of a file, or why it can't, and what to do."""
    try:
        if path.is_symlink() and not path.exists():
            return Reading(
                path, fault=f"a link to {path.readlink()}, which is not there; remove it"
            )
        if not path.exists():
            return Reading(path)
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "neither a file nor a folder"
            return Reading(path, fault=f"{kind}, expected a file; move it away")
        return Reading(path, reader(), is_whole=True)
    except Damaged as damage:
        return Reading(path, fault=f"{damage}; {remedy}")
    except UserError as error:
        return Reading(path, fault=str(error).removeprefix(f"{path}: "))
    except OSError as error:
        reason = error.strerror or error
        return Reading(path, fault=f"can't be read ({reason}); check its permissions and its disk")


def check_lock(run: RunFolder, lock: Reading) -> Iterator[Finding]:
    if lock.fault:
        yield problem(run, lock.path, lock.fault)
    elif lock.value:
        text = "a process is writing to this run; what it has not finished may look like a fault"
        yield Finding(named(run, lock.path), "note", text)


def check_product(known: Readings, product: Product) -> Iterator[Finding]:
    """The files of a product, and those that it names."""
    run = known.run
    for reading in known.all(product):
        if reading.is_whole:
            fault = fault_of_origins(product, reading.value, run, known.present)
            if fault is None and product.name in SPANNING:
                fault = SPANNING[product.name](known, reading)
            yield (
                problem(run, reading.path, fault)
                if fault
                else whole(run, reading.path, product.summary(reading.value))
            )
        elif reading.fault is not None:
            more = where_training_goes_on(known) if product.name == CHECKPOINTS.name else ""
            yield problem(run, reading.path, reading.fault + more)
        elif product.is_required(run):
            remedy = remedy_text(product.remedy, run).removeprefix("remove it and ")
            yield problem(run, reading.path, f"missing; {remedy}")
        if product.parts is not None:
            yield from check_parts(known, product, product.parts, reading)


def check_parts(
    known: Readings, product: Product, parts: Parts, index: Reading
) -> Iterator[Finding]:
    """The files that an index names; where it can't be read, those that are there."""
    run, folder = known.run, index.path.parent
    if not index.is_whole:
        for path in sorted(folder.glob("[!.]*")) if folder.is_dir() else ():
            if path != index.path:
                yield Finding(named(run, path), "note", f"not examined without {index.path.name}")
        return
    remedy = remedy_text(product.remedy, run)
    for name, sha256 in parts.files(index.value).items():
        path = folder / name
        if not is_own_name(name):
            where = "which is in another folder; don't use this bundle"
            yield problem(run, path, f"{index.path.name} names {name!r}, {where}")
            continue
        part = read(path, partial(parts.read, path, sha256), remedy)
        if part.is_whole:
            yield whole(run, path, parts.summary(part.value))
        else:
            yield problem(run, path, part.fault or f"missing; {remedy}")


def fault_of_metrics(known: Readings, reading: Reading) -> str | None:
    rows, config, newest = reading.value, known.value(CONFIG), known.newest
    fault = None
    if not rows:
        fault = "empty"
    elif wrong := next(_rows_of_wrong_steps(rows), None):
        fault = wrong
    elif config is not None and len(rows) - 1 > settled(config.epochs):
        fault = f"has {len(rows) - 1} epochs, config.yaml asks for {settled(config.epochs)}"
    elif newest is not None and rows[: len(newest.metrics)] != newest.metrics:
        fault = f"other figures than in the checkpoint of step {newest.step}"
    return None if fault is None else f"{fault}; {remedy_text(METRICS.remedy, known.run)}"


def _rows_of_wrong_steps(rows: Sequence[Row]) -> Iterator[str]:
    per_epoch = rows[1].get("step") if len(rows) > 1 else 0
    for epoch, row in enumerate(rows):
        if not isinstance(per_epoch, int) or row.get("step") != epoch * per_epoch:
            yield f"line {epoch + 1} is of step {row.get('step')}, not of the end of epoch {epoch}"


def fault_of_checkpoint(known: Readings, reading: Reading) -> str | None:
    summary, config, weights = reading.value, known.value(CONFIG), known.value(WEIGHTS)
    name = f"step-{summary.step:08d}"
    if reading.path.stem != name:
        return f"holds step {summary.step}, so it was renamed; name it {name}, or remove it"
    if config is not None and (differences := trajectory_differences(summary.config, config)):
        return (
            f"made with other settings than config.yaml ({'; '.join(differences)}); "
            f"put the right config.yaml back"
        )
    if weights is not None and (differing := differing_tensor(summary, weights.vae)):
        return f"not of the model in model.safetensors ({differing} differs); remove it"
    return None


def differing_tensor(summary: CheckpointSummary, vae: VAE) -> str | None:
    """The first tensor that a checkpoint of this model would have otherwise, or not at all."""
    shapes = summary.shapes
    parts = ("model", "ema", "kept") if summary.config.keep == "best" else ("model", "ema")
    expected = {
        f"{part}.{name}": tensor.shape
        for part in parts
        for name, tensor in vae.state_dict().items()
    }
    found = {name: shape for name, shape in shapes.items() if name.startswith(WEIGHTS_OF)}
    if differing := expected.items() ^ found.items():
        return min(name for name, _ in differing)
    of_parameters = sorted(parameter.shape for parameter in vae.parameters())
    for moment in MOMENTS:
        of_moments = sorted(shape for name, shape in shapes.items() if name.endswith(f".{moment}"))
        if of_moments != of_parameters:
            return f"the optimizer's {moment}"
    return None


def where_training_goes_on(known: Readings) -> str:
    if known.newest is None:
        return "; none is whole: give another --run folder to start anew"
    return f"; `{known.run.train_again}` goes on from step {known.newest.step}"


def fault_of_weights(known: Readings, reading: Reading) -> str | None:
    weights, config, newest = reading.value, known.value(CONFIG), known.newest
    if config is not None and (fault := fault_against_config(weights, config, known.run)):
        return fault
    if newest is not None and newest.images_sha256 != weights.images_sha256:
        again = remedy_text(WEIGHTS.remedy, known.run)
        return f"of other images than the checkpoint of step {newest.step}; {again}"
    return None


def fault_of_svm(known: Readings, reading: Reading) -> str | None:
    weights = known.value(WEIGHTS)
    return None if weights is None else fault_against_weights(reading.value, weights, known.run)


def fault_of_latents(known: Readings, reading: Reading) -> str | None:
    """Of the arrays together; each is told of alone."""
    folder, metadata = reading.path.parent, reading.value
    arrays = {}
    for name, sha256 in metadata["files"].items():
        array = read(folder / name, partial(read_part, folder / name, sha256))
        if not array.is_whole:
            return None
        arrays[name] = array.value
    remedy = remedy_text(LATENTS.remedy, known.run)
    return read(reading.path, partial(assemble, metadata, arrays), remedy).fault


def fault_of_svm_config(known: Readings, reading: Reading) -> str | None:
    config, metrics = to_dict(reading.value), known.value(SVM_METRICS)
    before = {name: each.metadata.get("before") for name, each in fields_by_flag(SvmConfig).items()}
    if metrics is None or config == {name: metrics.get(name, before[name]) for name in config}:
        return None
    return f"other settings than in metrics.json; {remedy_text(SVM_CONFIG.remedy, known.run)}"


def fault_of_bundle(known: Readings, reading: Reading) -> str | None:
    manifest: Manifest = reading.value
    try:
        require_complete(reading.path.parent, manifest)
    except UserError as error:
        return str(error).removeprefix(f"{reading.path}: ")
    svm = known.one(SVM)
    if manifest.svm_sha256 is not None and not svm.is_whole and svm.fault is None:
        return "of an SVM, and the run has none; make both again"
    return None


SPANNING: dict[str, Callable[[Readings, Reading], str | None]] = {
    METRICS.name: fault_of_metrics,
    CHECKPOINTS.name: fault_of_checkpoint,
    WEIGHTS.name: fault_of_weights,
    LATENTS.name: fault_of_latents,
    SVM.name: fault_of_svm,
    SVM_CONFIG.name: fault_of_svm_config,
    **{bundle.name: fault_of_bundle for bundle in BUNDLES},
}


def notes(known: Readings) -> Iterator[Finding]:
    """What is no fault: what is not made yet, and what the report does without."""
    run, config = known.run, known.value(CONFIG)
    metrics, weights, latents = (known.one(each) for each in (METRICS, WEIGHTS, LATENTS))
    rows = metrics.value or []
    own = ("folder", "arrays", "idx")
    if config and config.data.name in own and not Path(config.data.root).exists():
        stage = f"`vaekit latents {run.quoted} --data.root FOLDER`"
        text = f"not in {config.data.root}; {stage}, report and export take them from elsewhere"
        yield Finding("images", "note", text)
    if not metrics.path.exists() and not METRICS.is_required(run):
        yield Finding("training", "note", f"has not begun; begin it with `{run.train_again}`")
    elif config and rows and len(rows) - 1 < settled(config.epochs):
        text = f"{len(rows) - 1} of {settled(config.epochs)} epochs are done"
        yield Finding("training", "note", f"{text}; go on with `{run.train_again}`")
    yield from notes_on_what_training_leaves(known, rows)
    if latents.fault is None and not latents.is_whole and not LATENTS.is_required(run):
        yield Finding("latents", "note", remedy_text(f"none yet; {LATENTS.remedy}", run))
    has_svm = os.path.lexists(SVM.path(run)) or SVM.is_required(run)
    if latents.is_whole and "train_labels.npy" in latents.value["files"] and not has_svm:
        yield Finding("svm", "note", remedy_text("none yet; make it with `vaekit svm {run}`", run))
    placed = known.value(MAP)
    if (
        placed
        and latents.is_whole
        and placed.metadata.get("latents_sha256") != known.present["latents"]
    ):
        text = "the map is of earlier latents; `vaekit report {run}` makes it anew"
        yield Finding("figures", "note", remedy_text(text, run))
    if weights.is_whole and not os.path.lexists(run.report):
        text = "none yet; make it with `vaekit report {run}`"
        yield Finding(REPORT.files, "note", remedy_text(text, run))


def check_images(config: TrainConfig | None) -> Iterator[Finding]:
    """The decoded images beside a folder's files, read whole. What is damaged is no loss."""
    if config is None or config.data.name != "folder":
        return
    from vaekit.images.cache import examine  # decoders are imported with it
    from vaekit.images.walk import CACHE_FOLDER

    cache = Path(config.data.root) / CACHE_FOLDER
    examined = examine(cache)
    for name, fault in examined.faults.items():
        text = f"{fault}; the next start makes it again from the files"
        yield Finding(str(cache / name), "note", text)
    if examined.num_whole:
        yield Finding(str(cache), "ok", f"{examined.num_whole} parts of decoded images are whole")


def notes_on_what_training_leaves(known: Readings, rows: Sequence[Row]) -> Iterator[Finding]:
    run, config = known.run, known.value(CONFIG)
    is_done = config is not None and len(rows) > settled(config.epochs)
    if rows and not os.path.lexists(run.environment):
        yield Finding(ENVIRONMENT.files, "note", "missing; the report does without")
    if len(rows) > 1 and not known.all(CHECKPOINTS):
        text = "none; should training stop now, it would begin anew"
        if is_done:
            text = "none; the run is trained to its end and the later stages do without"
        yield Finding("checkpoints", "note", text)
    epochs = ([0] if rows else []) + ([settled(config.epochs)] if is_done else [])
    for path_of in (run.samples, run.reconstructions):
        for path in map(path_of, epochs):
            if not os.path.lexists(path) and not fault_of_folder(path.parent):
                yield Finding(named(run, path), "note", "missing; the report does without")


def list_others(
    run: RunFolder, folder: Path, examined: set[str], is_being_written: bool
) -> Iterator[Finding]:
    """Links, what a killed writer left, and what vaekit never wrote."""
    bundles = {bundle.name for bundle in BUNDLES}
    for path in sorted(folder.iterdir()):
        name = named(run, path)
        if path.is_symlink():
            yield Finding(name, "note", f"a link to {path.readlink()}")
        if path.name.startswith(TEMPORARY):
            text = "left by a writer that was killed; it can be deleted"
            yield Finding(name, "note", "being written" if is_being_written else text)
        elif path.name.startswith(OLD) and path.name.removeprefix(OLD) in bundles:
            place = path.with_name(path.name.removeprefix(OLD))
            text = "left by an export that was killed; "
            text += "it can be deleted" if place.exists() else f"rename it to {place.name}"
            yield Finding(name, "note", text)
        elif path.name.startswith(PARTS):
            text = f"of an encoding that was interrupted; `vaekit latents {run.quoted}` goes on"
            yield Finding(name, "note", "being written" if is_being_written else text)
        elif name in FOLDERS and path.is_dir() and not fault_of_folder(path):
            yield from list_others(run, path, examined, is_being_written)
        elif name not in examined | MADE_BESIDES:
            yield Finding(name, "note", "not written by vaekit, and read by no stage")


def fault_of_folder(folder: Path) -> str | None:
    if not os.path.lexists(folder):
        return None
    if not folder.is_dir():
        return "expected a folder; move away what is there"
    if not os.access(folder, os.R_OK | os.X_OK):
        return "no permission to look into it; chmod u+rx the folder"
    return None


def named(run: RunFolder, path: Path) -> str:
    return os.path.relpath(path, run.path)  # which has an answer to forged names, too


def whole(run: RunFolder, path: Path, text: str) -> Finding:
    return Finding(named(run, path), "ok", text)


def problem(run: RunFolder, path: Path, text: str) -> Finding:
    return Finding(named(run, path), "problem", text)
