"""What this machine offers: ranks, devices, threads, precisions, an SVM's backend, disk space."""

import os
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from accelerate import PartialState
from joblib import cpu_count

from vaekit.config import TrainConfig
from vaekit.doctor.findings import Finding
from vaekit.errors import UserError
from vaekit.svm.backend import choose_backend
from vaekit.training.precision import TITLES, auto_precision, is_native
from vaekit.training.process import use_all_cores
from vaekit.training.ranks import start_ranks

CUML_PACKAGES = ("cuml-cu13", "cuml-cu12")
RUN_BYTES = 1.5e9  # a run of the reference with what its later stages add, rounded up
GIB = 2**30


def examine_machine() -> list[Finding]:
    """Every rank of a launch must call it, for it finds out whether they are real."""
    ranks = _join()
    return [
        ranks,
        *_devices(),
        _cpu(),
        _precisions(),
        _cuml(),
        _disk(Path(str(TrainConfig().run))),
    ]


def _join() -> Finding:
    try:
        ranks = start_ranks()
    except UserError as error:
        return Finding("ranks", "problem", str(error))
    use_all_cores(ranks.device)
    ranks.wait_for_everyone()
    finding = Finding("ranks", "ok", _said(ranks))
    ranks.destroy_process_group()
    return finding


def _said(ranks: PartialState) -> str:
    if ranks.num_processes == 1:
        return "one process"
    return f"{ranks.num_processes} processes, which found one another over {ranks.backend}"


def _devices() -> Iterator[Finding]:
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        memory = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
        yield Finding(f"cuda:{index}", "ok", f"{name}, {memory}")
    if torch.cuda.is_available():
        return
    other = torch.accelerator.current_accelerator(check_available=True)
    if other is not None:
        yield Finding("device", "ok", str(other))
    elif shutil.which("nvidia-smi") is None:
        yield Finding("device", "ok", "cpu; there is no GPU")
    else:
        cuda = torch.version.cuda
        why = (
            "this PyTorch is built without CUDA; `pip install torch` brings one with it"
            if cuda is None
            else f"PyTorch needs a driver for CUDA {cuda} and a GPU that CUDA_VISIBLE_DEVICES "
            f"does not hide; `nvidia-smi` shows both"
        )
        yield Finding("device", "note", f"cpu, though an NVIDIA driver is installed: {why}")


def _cpu() -> Finding:
    cores, threads = cpu_count(), torch.get_num_threads()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    text = f"{memory:.1f} GiB of memory, {cores} cores; a process of training uses {threads}"
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    asked = os.environ.get("OMP_NUM_THREADS")
    if asked is None or threads * local_processes >= cores or torch.accelerator.is_available():
        return Finding("cpu", "ok", text)
    return Finding("cpu", "note", f"{text}, as OMP_NUM_THREADS={asked} says: unset it to use all")


def _precisions() -> Finding:
    native = ["float32", *(name for name in ("bf16", "fp16") if is_native(name))]
    text = f"{', '.join(native)} native; --mixed_precision auto is {TITLES[auto_precision()]}"
    return Finding("precision", "ok", text)


def _cuml() -> Finding:
    backend, reason = choose_backend("auto")
    installed = _cuml_version()
    if backend == "cuml":
        return Finding("cuml", "ok", f"{installed}, usable {reason}; `vaekit svm` fits with it")
    obstacle = reason.removeprefix("not cuML: ")
    text = f"{installed}, not usable: {obstacle}; `vaekit svm` fits with scikit-learn"
    if not torch.cuda.is_available():
        return Finding("cuml", "ok", text)
    return Finding("cuml", "note", f"{text}; `pip install {CUML_PACKAGES[0]}` for its GPU path")


def _cuml_version() -> str:
    for package in CUML_PACKAGES:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "not installed"


def _disk(run: Path) -> Finding:
    """The disk on which run folders would lie."""
    place = run.parent
    existing = next(path for path in [place, *place.absolute().parents] if path.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / 1e9:,.1f} GB free in {place.absolute()}"
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding("disk", "note", f"{text}, where you may not write; give --run elsewhere")
    if free < RUN_BYTES:
        need = f"a run of the default model takes up to {RUN_BYTES / 1e9:.1f} GB"
        return Finding("disk", "note", f"{text}; {need}: make room, or give --run elsewhere")
    return Finding("disk", "ok", text)
