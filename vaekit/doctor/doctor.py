"""`vaekit doctor`: what is wrong with this machine or with runs, and what to do about it."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vaekit import __version__
from vaekit.doctor.findings import Finding, as_lines, num_of
from vaekit.errors import UserError

PACKAGES = (
    "torch",
    "torchvision",
    "accelerate",
    "numpy",
    "scikit-learn",
    "safetensors",
    "onnx",
    "onnxruntime",
)


def doctor(runs: Sequence[Path]) -> None:
    """Examine runs, or without one this machine, and print every finding.

    Under a launcher every rank joins and one speaks. Raises `UserError` where something is
    wrong, after all of it has been listed.
    """
    speaks = os.environ.get("RANK", "0") == "0"
    if runs and speaks:
        diagnose_runs(runs)
    elif not runs:
        findings = examine_installation()
        if not num_of("problem", findings):
            from vaekit.doctor.machine import examine_machine  # imports what has just been found

            findings += examine_machine()
        if speaks:
            diagnose_machine(findings)


def diagnose_machine(findings: Sequence[Finding]) -> None:
    _show(findings)
    if num_problems := num_of("problem", findings):
        raise UserError(f"this machine: {_counted(num_problems)}; see above what to do")
    print("no problem found; `vaekit doctor RUN` examines a run", flush=True)


def diagnose_runs(runs: Sequence[Path]) -> None:
    from vaekit.doctor.runs import examine_run

    faulty = []
    for run in runs:
        try:
            findings = examine_run(run)
        except UserError as error:
            faulty.append(str(error))
            continue
        _show(findings)
        num_whole = num_of("ok", findings)
        if num_problems := num_of("problem", findings):
            counted = f"{_counted(num_problems)}, beside {num_whole} files that are whole"
            faulty.append(f"{run}: {counted}; see above what to do")
        else:
            print(f"{run}: all {num_whole} files are whole", flush=True)
    if faulty:
        raise UserError("; ".join(faulty))


def examine_installation() -> list[Finding]:
    """The versions of what vaekit stands on; nothing of it is imported."""
    findings = [
        Finding("vaekit", "ok", __version__),
        Finding("python", "ok", platform.python_version()),
    ]
    for package in PACKAGES:
        try:
            findings.append(Finding(package, "ok", version(package)))
        except PackageNotFoundError:
            remedy = f"install it with `pip install {package}`"
            findings.append(Finding(package, "problem", f"not installed; {remedy}"))
    return findings


def _show(findings: Sequence[Finding]) -> None:
    for line in as_lines(findings):
        print(line, flush=True)


def _counted(num_problems: int) -> str:
    return f"{num_problems} problem{'' if num_problems == 1 else 's'}"
