"""Whether a run is whole: every file that a stage reads, read as that stage reads it."""

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Size

from vaekit.config import SvmConfig, TrainConfig, trajectory_differences
from vaekit.doctor.findings import Finding, Verdict
from vaekit.errors import UserError
from vaekit.export.manifest import (
    MANIFEST,
    Manifest,
    read_manifest,
    require_complete,
    require_file,
)
from vaekit.models.vae import VAE, num_parameters
from vaekit.report import map as latent_map
from vaekit.runs.checkpoints import load_checkpoint
from vaekit.runs.folder import RunFolder, Weights
from vaekit.settings import from_dict, read_config
from vaekit.stages import latents
from vaekit.stages.svm import Svm, read_measurements, read_table
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import expected_of, typed
from vaekit.storage.tensors import read_tensors

BUNDLES = {"onnx": "", "onnx-fp16": " --weights fp16"}  # folder -> the flag that makes it
FOLDERS = {"checkpoints", "samples", "reconstructions", "latents", "svm", "figures", *BUNDLES}
MADE_BESIDES = {".lock", "trackers"}  # and read by no stage
OLD, TEMPORARY = ".old-", ".tmp"  # how the names begin of what only a killed writer leaves
MOMENTS = ("exp_avg", "exp_avg_sq")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Row = dict[str, Any]
T = TypeVar("T")


class Reading(NamedTuple, Generic[T]):
    """A file and what its reader gives; neither a value nor a fault where there is no file."""

    path: Path
    value: T | None = None
    fault: str | None = None


class Outline(NamedTuple):
    """A checkpoint without the values of its tensors."""

    step: int
    config: TrainConfig
    images_sha256: str
    metrics: list[Row]
    shapes: dict[str, Size]


class Parts(NamedTuple):
    """What training and the stages after it have left, as far as it can be read."""

    lock: Reading[bool]  # whether a live process holds it
    config: Reading[TrainConfig]
    rows: Reading[list[Row]]
    checkpoints: list[Reading[Outline]]  # the oldest first
    weights: Reading[Weights]
    latents: Reading[dict[str, Any]]  # their facts
    svm: Reading[Svm]

    @property
    def newest(self) -> Outline | None:
        """The checkpoint from which training would go on."""
        return next((each.value for each in reversed(self.checkpoints) if each.value), None)


def examine_run(run_path: Path) -> list[Finding]:
    """Every file of a run that is whole, and all that is wrong, stage by stage.

    Nothing is written, run or made anew, and no image set is loaded. Raises `UserError` where
    there is no run at all.
    """
    run = RunFolder(run_path)
    if not run.path.is_dir() or not any(run.path.iterdir()):
        run.require_config()
    parts = read_parts(run)
    findings = [
        *check_lock(run, parts),
        *check_config(run, parts),
        *check_environment(run, parts),
        *check_metrics(run, parts),
        *check_checkpoints(run, parts),
        *check_weights(run, parts),
        *check_training_pictures(run, parts),
        *check_latents(run, parts),
        *check_svm(run, parts),
        *check_report(run, parts),
        *(finding for name in BUNDLES for finding in check_bundle(run, parts, name)),
    ]
    examined = {finding.subject for finding in findings}
    return [*findings, *list_others(run, run.path, examined, bool(parts.lock.value))]


def read_parts(run: RunFolder) -> Parts:
    svm_path = run.svm / "svm.safetensors"
    return Parts(
        lock=read(run.path / ".lock", run.is_being_written),
        config=read(run.config, run.require_config),
        rows=read(run.metrics, run.read_metrics),
        checkpoints=[
            read(path, partial(read_outline, path))
            for path in sorted(run.checkpoints.glob("step-*.safetensors"))
        ],
        weights=read(run.model, run.read_model),
        latents=read(run.latents / "latents.json", partial(latents.read_facts, run)),
        svm=read(svm_path, partial(read_table, svm_path)),
    )


def read_outline(path: Path) -> Outline:
    step, tensors, facts = load_checkpoint(path)
    with expected_of(path, "remove it"):
        return Outline(
            step=typed(step, int),
            config=from_dict(TrainConfig, typed(facts["config"], dict)),
            images_sha256=typed(facts["images_sha256"], str),
            metrics=typed(facts["metrics"], list),
            shapes={name: tensor.shape for name, tensor in tensors.items()},
        )


def read(path: Path, reader: Callable[[], T]) -> Reading[T]:
    """What a stage would read of a file, or what it would say."""
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
        return Reading(path, reader())
    except UserError as error:
        return Reading(path, fault=str(error).removeprefix(f"{path}: "))
    except OSError as error:
        reason = error.strerror or error
        return Reading(path, fault=f"can't be read ({reason}); check its permissions and its disk")


def check_lock(run: RunFolder, parts: Parts) -> Iterator[Finding]:
    if parts.lock.fault:
        yield unread(run, parts.lock)
    elif parts.lock.value:
        text = "a process is writing to this run; what it has not finished may look like a fault"
        yield Finding(named(run, parts.lock.path), "note", text)


def check_config(run: RunFolder, parts: Parts) -> Iterator[Finding]:
    config = parts.config.value
    if config is None:
        missing = "missing, and no stage goes on without it; put a good copy there"
        yield unread(run, parts.config, "problem", missing)
        return
    yield whole(run, run.config, "every setting is there and in its range")
    if config.data.name == "folder" and not Path(config.data.root).is_dir():
        text = f"not in {config.data.root}; resume, latents, report and export need them there"
        yield Finding("images", "note", text)


def check_environment(run: RunFolder, parts: Parts) -> Iterator[Finding]:
    starts = read(run.environment, run.read_environment)
    if starts.value is not None:
        yield whole(run, run.environment, f"starts recorded: {len(starts.value)}")
    elif starts.fault or parts.rows.value:
        yield unread(run, starts, "note", "missing; the report does without")


def check_metrics(run: RunFolder, parts: Parts) -> Iterator[Finding]:
    rows, config = parts.rows.value, parts.config.value
    anew = f"write it anew with `{run.train_again}`"
    if rows is None and (parts.rows.fault or parts.checkpoints or is_there(run.model)):
        yield unread(run, parts.rows, "problem", f"missing; {anew}")
    elif rows is None:
        yield Finding("training", "note", f"has not begun; begin it with `{run.train_again}`")
    elif fault := fault_of_rows(rows, config, parts.newest):
        yield problem(run, run.metrics, f"{fault}; {anew}")
    else:
        done = len(rows) - 1
        yield whole(run, run.metrics, f"epochs done: {done}")
        if config is not None and done < config.epochs:
            text = f"{done} of {config.epochs} epochs are done; go on with `{run.train_again}`"
            yield Finding("training", "note", text)


def fault_of_rows(
    rows: Sequence[Row], config: TrainConfig | None, newest: Outline | None
) -> str | None:
    if not rows:
        return "empty"
    per_epoch = rows[1].get("step") if len(rows) > 1 else 0
    for epoch, row in enumerate(rows):
        if not isinstance(per_epoch, int) or row.get("step") != epoch * per_epoch:
            return f"line {epoch + 1} is of step {row.get('step')}, not of the end of epoch {epoch}"
    if config is not None and len(rows) - 1 > config.epochs:
        return f"has {len(rows) - 1} epochs, config.yaml asks for {config.epochs}"
    if newest is not None and rows[: len(newest.metrics)] != newest.metrics:
        return f"other figures than in the checkpoint of step {newest.step}"
    return None


def check_checkpoints(run: RunFolder, parts: Parts) -> Iterator[Finding]:
    if fault := fault_of_folder(run.checkpoints):
        yield problem(run, run.checkpoints, fault)
    elif not parts.checkpoints and len(parts.rows.value or ()) > 1:
        text = "none; should training stop now, it would begin anew"
        if parts.config.value and len(parts.rows.value or ()) > parts.config.value.epochs:
            text = "none; the run is trained to its end and the later stages do without"
        yield Finding("checkpoints", "note", text)
    goes_on = "none is whole: give another --run folder to start anew"
    if parts.newest is not None:
        goes_on = f"`{run.train_again}` goes on from step {parts.newest.step}"
    for reading in parts.checkpoints:
        if reading.fault is not None:
            yield problem(run, reading.path, f"{reading.fault}; {goes_on}")
        elif reading.value is None:
            continue  # pruned by the process that trains, since the folder was listed
        elif fault := fault_of_checkpoint(reading.path, reading.value, parts):
            yield problem(run, reading.path, fault)
        else:
            yield whole(run, reading.path, f"step {reading.value.step}")


def fault_of_checkpoint(path: Path, outline: Outline, parts: Parts) -> str | None:
    name = f"step-{outline.step:08d}"
    if path.stem != name:
        return f"holds step {outline.step}, so it was renamed; name it {name}, or remove it"
    if parts.config.value is not None:
        differences = trajectory_differences(outline.config, parts.config.value)
        if differences:
            return (
                f"made with other settings than config.yaml ({'; '.join(differences)}); "
                f"put the right config.yaml back"
            )
    if parts.weights.value is not None:
        differing = differing_tensors(outline.shapes, parts.weights.value.vae)
        if differing:
            return f"not of the model in model.safetensors ({differing[0]} differs); remove it"
    return None


def differing_tensors(shapes: dict[str, Size], vae: VAE) -> list[str]:
    """Names of tensors that a checkpoint of this model would have otherwise, or not at all."""
    expected = {
        f"{part}.{name}": tensor.shape
        for part in ("model", "ema")
        for name, tensor in vae.state_dict().items()
    }
    found = {name: shape for name, shape in shapes.items() if name.startswith(("model.", "ema."))}
    names = expected.keys() | found.keys()
    differing = sorted(name for name in names if expected.get(name) != found.get(name))
    of_parameters = sorted(parameter.shape for parameter in vae.parameters())
    for moment in MOMENTS:
        of_moments = sorted(shape for name, shape in shapes.items() if name.endswith(f".{moment}"))
        if of_moments != of_parameters:
            differing.append(f"the optimizer's {moment}")
    return differing


def check_weights(run: RunFolder, parts: Parts) -> Iterator[Finding]:
    weights, config, newest = parts.weights.value, parts.config.value, parts.newest
    anew = f"make it again with `{run.train_again}`"
    if weights is None:
        if parts.weights.fault or parts.rows.value or newest:
            yield unread(run, parts.weights, "problem", f"missing; {anew}")
    elif config is not None and weights.vae.config != config.model:
        text = f"of another model than config.yaml asks for; put the right one back, or {anew}"
        yield problem(run, run.model, text)
    elif newest is not None and newest.images_sha256 != weights.images_sha256:
        text = f"of other images than the checkpoint of step {newest.step}; remove it and {anew}"
        yield problem(run, run.model, text)
    else:
        yield whole(run, run.model, f"{num_parameters(weights.vae):,} parameters")


def check_training_pictures(run: RunFolder, parts: Parts) -> Iterator[Finding]:
    """Those before training and at its end must be there; the others depend on --sample_every."""
    rows, config = parts.rows.value or [], parts.config.value
    epochs = [0] if rows else []
    if config is not None and len(rows) > config.epochs:
        epochs.append(config.epochs)
    for path_of in (run.samples, run.reconstructions):
        folder = path_of(0).parent
        yield from check_pictures(run, folder)
        for path in [] if fault_of_folder(folder) else map(path_of, epochs):
            if not is_there(path):
                yield Finding(named(run, path), "note", "missing; the report does without")


def check_pictures(run: RunFolder, folder: Path) -> Iterator[Finding]:
    if fault := fault_of_folder(folder):
        yield problem(run, folder, fault)
        return
    for path in sorted(folder.glob("[!.]*.png")):
        reading = read(path, path.read_bytes)
        if reading.value is None:
            yield unread(run, reading)
        elif is_whole_png(reading.value):
            yield whole(run, path, "a whole picture")
        else:
            yield problem(run, path, "not a whole picture any more; delete it")


def is_whole_png(content: bytes) -> bool:
    """Whether every chunk up to the last is there and as its checksum says."""
    at = len(PNG_SIGNATURE)
    if content[:at] != PNG_SIGNATURE:
        return False
    while len(content) - at >= 12:
        length, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        end = at + 8 + length
        if int.from_bytes(content[end : end + 4]) != zlib.crc32(content[at + 4 : end]):
            return False
        at = end + 4
        if kind == b"IEND":
            return at == len(content)
    return False


def check_latents(run: RunFolder, parts: Parts) -> Iterator[Finding]:
    facts, weights = parts.latents.value, parts.weights.value
    anew = f"make them with `vaekit latents {run.quoted}`"
    if fault := fault_of_folder(run.latents):
        yield problem(run, run.latents, fault)
    elif facts is None:
        paths = [run.latents / name for name in (*latents.LATENT_FILES, *latents.LABEL_FILES)]
        present = [path for path in paths if is_there(path)]
        if not present and not parts.latents.fault:
            yield Finding("latents", "note", f"none yet; {anew}")
            return
        yield unread(run, parts.latents, "problem", f"missing; {anew}")
        for path in present:
            yield Finding(
                named(run, path), "note", f"not examined without {parts.latents.path.name}"
            )
    else:
        arrays = [
            read(run.latents / name, partial(latents.read_array, run, facts, name))
            for name in facts["files"]
        ]
        fault = None
        if weights is not None and facts["model_sha256"] != weights.sha256:
            fault = f"made from other weights than {run.model.name}; {anew}"
        elif parts.config.value and weights and all(each.value is not None for each in arrays):
            fault = read(parts.latents.path, partial(latents.read_latents, run)).fault
        yield (
            problem(run, parts.latents.path, fault)
            if fault
            else whole(run, parts.latents.path, f"names {len(arrays)} files")
        )
        for array in arrays:
            if array.value is None:
                yield unread(run, array, "problem", f"missing; {anew}")
            else:
                yield whole(run, array.path, f"{array.value.dtype} {list(array.value.shape)}")


def check_svm(run: RunFolder, parts: Parts) -> Iterator[Finding]:
    anew = f"make it again with `vaekit svm {run.quoted}`"
    svm, weights, facts = parts.svm.value, parts.weights.value, parts.latents.value
    config_path, metrics_path = run.svm / "config.yaml", run.svm / "metrics.json"
    config = read(config_path, partial(read_config, SvmConfig, config_path))
    metrics = read(metrics_path, partial(read_measurements, run))
    latents_sha256 = None if facts is None else latents.facts_sha256(facts)

    if fault := fault_of_folder(run.svm):
        yield problem(run, run.svm, fault)
        return
    if not any(is_there(each.path) for each in (parts.svm, config, metrics)):
        if facts is not None and "train_labels.npy" in facts["files"]:
            yield Finding("svm", "note", f"none yet; make it with `vaekit svm {run.quoted}`")
        return

    if svm is None:
        yield unread(run, parts.svm, "problem", f"missing; {anew}")
    elif weights is not None and svm.model_sha256 != weights.sha256:
        first = f"`vaekit latents {run.quoted}`"
        text = f"of other weights than {run.model.name}; after {first} {anew}"
        yield problem(run, parts.svm.path, text)
    elif latents_sha256 not in (None, svm.latents_sha256):
        yield problem(run, parts.svm.path, f"of other latents than those in latents; {anew}")
    else:
        num_classes, num_vectors = len(svm.table.classes), len(svm.table.support_vectors)
        yield whole(run, parts.svm.path, f"{num_classes} classes, {num_vectors:,} support vectors")

    if config.value is None:
        yield unread(run, config, "problem", f"missing; {anew}")
    elif metrics.value is not None and disagree(config.value, metrics.value):
        yield problem(run, config_path, f"other settings than in metrics.json; {anew}")
    else:
        yield whole(run, config_path, f"C {config.value.C:g}, gamma {config.value.gamma:g}")

    if metrics.value is None:
        yield unread(run, metrics, "problem", f"missing; {anew}")
    elif latents_sha256 not in (None, metrics.value.get("latents_sha256")):
        yield problem(run, metrics_path, f"of other latents than those in latents; {anew}")
    else:
        yield whole(run, metrics_path, f"accuracy {metrics.value['accuracy']:.4f}")


def disagree(config: SvmConfig, metrics: dict[str, Any]) -> bool:
    return (config.C, config.gamma) != (metrics.get("C"), metrics.get("gamma"))


def check_report(run: RunFolder, parts: Parts) -> Iterator[Finding]:
    """The page, its figures, and the map that is kept beside them."""
    yield from check_pictures(run, run.figures)
    path = run.figures / "tsne.safetensors"
    placed = read(
        path,
        lambda: read_tensors(
            path,
            format_name=latent_map.FORMAT,
            version=latent_map.FORMAT_VERSION,
            remedy="delete it",
        ),
    )
    if placed.value is not None:
        yield whole(run, path, "the map of the latents")
        facts = parts.latents.value
        made_of = placed.value.facts.get("latents_sha256")
        if facts is not None and made_of != latents.facts_sha256(facts):
            text = f"the map is of earlier latents; `vaekit report {run.quoted}` makes it anew"
            yield Finding(named(run, run.figures), "note", text)
    elif placed.fault:
        yield unread(run, placed)

    page = read(run.report, run.report.read_bytes)
    if page.value is None:
        anew = f"make it with `vaekit report {run.quoted}`"
        if page.fault or parts.weights.value is not None:
            yield unread(run, page, "note", f"none yet; {anew}")
    elif page.value.rstrip().endswith(b"</html>"):
        yield whole(run, run.report, f"{len(page.value) / 1e6:.1f} MB")
    else:
        anew = f"make it again with `vaekit report {run.quoted}`"
        yield problem(run, run.report, f"ends in the middle; {anew}")


def check_bundle(run: RunFolder, parts: Parts, name: str) -> Iterator[Finding]:
    bundle = run.path / name
    anew = f"make it again with `vaekit export {run.quoted}{BUNDLES[name]}`"
    if fault := fault_of_folder(bundle):
        yield problem(run, bundle, fault)
    if fault or not bundle.is_dir():
        return
    reading = read(bundle / MANIFEST, lambda: read_manifest(bundle))
    manifest = reading.value
    if manifest is None:
        yield unread(run, reading, "problem", f"missing; {anew}")
        for path in sorted(bundle.iterdir()):
            if path != reading.path:
                yield Finding(named(run, path), "note", f"not examined, for want of {MANIFEST}")
        return

    complete = read(reading.path, partial(require_complete, bundle, manifest))
    if complete.fault:
        yield problem(run, reading.path, complete.fault)
    elif not is_of_run(manifest, parts):
        yield problem(run, reading.path, f"of other weights or another SVM than the run's; {anew}")
    else:
        yield whole(run, reading.path, f"names {len(manifest.files)} files")
    for file in manifest.files:
        found = read(bundle / file, partial(require_file, bundle, manifest, file))
        if found.fault or not is_there(found.path):
            yield unread(run, found, "problem", f"missing; {anew}")
        else:
            yield whole(run, found.path, "as the manifest says")


def is_of_run(manifest: Manifest, parts: Parts) -> bool:
    """Whether a bundle was made from the present weights and SVM, as far as they can be read."""
    weights, svm = parts.weights.value, parts.svm
    if weights is not None and manifest.model_sha256 != weights.sha256:
        return False
    if svm.fault:
        return True
    return manifest.svm_sha256 == (file_sha256(svm.path) if svm.value else None)


def list_others(
    run: RunFolder, folder: Path, examined: set[str], is_being_written: bool
) -> Iterator[Finding]:
    """Links, what a killed writer left, and what vaekit never wrote."""
    for path in sorted(folder.iterdir()):
        name = named(run, path)
        if path.is_symlink():
            yield Finding(name, "note", f"a link to {path.readlink()}")
        if path.name.startswith(TEMPORARY):
            text = "left by a writer that was killed; it can be deleted"
            yield Finding(name, "note", "being written" if is_being_written else text)
        elif path.name.startswith(OLD) and path.name.removeprefix(OLD) in BUNDLES:
            place = path.with_name(path.name.removeprefix(OLD))
            text = "left by an export that was killed; "
            text += "it can be deleted" if place.exists() else f"rename it to {place.name}"
            yield Finding(name, "note", text)
        elif name in FOLDERS and path.is_dir() and not fault_of_folder(path):
            yield from list_others(run, path, examined, is_being_written)
        elif name not in examined | MADE_BESIDES:
            yield Finding(name, "note", "not written by vaekit, and read by no stage")


def fault_of_folder(folder: Path) -> str | None:
    if not is_there(folder):
        return None
    if not folder.is_dir():
        return "expected a folder; move away what is there"
    if not os.access(folder, os.R_OK | os.X_OK):
        return "no permission to look into it; chmod u+rx the folder"
    return None


def is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def named(run: RunFolder, path: Path) -> str:
    return os.path.relpath(path, run.path)  # which has an answer to forged names, too


def whole(run: RunFolder, path: Path, text: str) -> Finding:
    return Finding(named(run, path), "ok", text)


def problem(run: RunFolder, path: Path, text: str) -> Finding:
    return Finding(named(run, path), "problem", text)


def unread(
    run: RunFolder, reading: Reading[Any], verdict: Verdict = "problem", missing: str = "missing"
) -> Finding:
    """Of a file without a value: the problem that it can't be read, or that it is missing."""
    if reading.fault is not None:
        return problem(run, reading.path, reading.fault)
    return Finding(named(run, reading.path), verdict, missing)
