"""What a start of a run ran on: whatever can influence its result or its speed."""

import platform
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from vaekit import __version__
from vaekit.config import flatten
from vaekit.storage.damage import as_written, damage_told, typed
from vaekit.storage.files import read_json, write_json
from vaekit.training.precision import convolves_in_tf32

# What may round a sum in another way; a run resumed on another of these is no longer exact.
ROUNDING = (
    "versions",
    "device",
    "cpu_capability",
    "num_processes",
    "threads",
    "tf32_convolutions",
    "execution_path",
    "git_revision",
)
PACKAGES = ("torch", "torchvision", "accelerate", "numpy", "safetensors", "scikit-learn")


def describe_environment(
    accelerator: Accelerator, execution_path: str, step: int
) -> dict[str, Any]:
    """One entry of environment.json; `step` is where this start begins."""
    on_cuda = accelerator.device.type == "cuda"
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "versions": installed_versions(),
        "device": torch.cuda.get_device_name() if on_cuda else accelerator.device.type,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "num_processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "mixed_precision": accelerator.mixed_precision,
        "tf32_convolutions": convolves_in_tf32(accelerator.device),
        "execution_path": execution_path,
        "command_line": sys.argv,
        "git_revision": git_revision(),
    }


def append_environment(path: Path, start: dict[str, Any]) -> None:
    """Add one start to environment.json."""
    with damage_told(path, "remove it"):
        before = read_environment(path) if path.exists() else []
    write_json(path, [*before, start])


def read_environment(path: Path) -> list[dict[str, Any]]:
    """The starts of a run, the first one first. Raises `Damaged` where they are something else."""
    starts: list[dict[str, Any]] = read_json(path)
    with as_written():
        for start in typed(starts, list):
            typed(start, dict)
    return starts


def installed_versions() -> dict[str, str]:
    """Versions by name; a package that a machine can do without may be missing."""
    versions = {"python": platform.python_version(), "vaekit": __version__}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def changes_since(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What may round in another way than at an earlier start, as lines `name: before -> now`."""
    old, new = (
        flatten({name: start[name] for name in ROUNDING if name in start})
        for start in (before, now)
    )
    return [
        f"{name}: {old[name]!r:.100} -> {new[name]!r:.100}"
        for name in old
        if name in new and old[name] != new[name]
    ]


def git_revision() -> str | None:
    """The commit of the source tree that runs; None for an installed package or without git."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return answer.stdout.strip() or None
