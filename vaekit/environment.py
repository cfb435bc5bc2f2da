"""What a start of a run ran on: the facts that can influence its result or its speed."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

PACKAGES = ("torch", "torchvision", "accelerate", "numpy", "safetensors", "scikit-learn")


def describe_environment(
    accelerator: Accelerator, execution_path: str, step: int
) -> dict[str, Any]:
    """One entry of environment.json; `step` is where this start begins."""
    on_cuda = accelerator.device.type == "cuda"
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("vaekit", *PACKAGES)},
        },
        "device": torch.cuda.get_device_name() if on_cuda else accelerator.device.type,
        "num_processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "mixed_precision": accelerator.mixed_precision,
        "execution_path": execution_path,
        "command_line": sys.argv,
        "git_revision": git_revision(),
    }


def git_revision() -> str | None:
    """The commit of the source tree that runs; None for an installed package or without git."""
    source = Path(__file__).resolve().parent.parent
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return answer.stdout.strip() or None
