"""What a start of a run runs on: whatever can influence its result or its speed."""

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
from vaekit.training.precision import convolves_in_tf32

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


def installed_versions() -> dict[str, str]:
    """Versions by name; a package that a machine can do without may be missing."""
    versions = {"python": platform.python_version(), "vaekit": __version__}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


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
