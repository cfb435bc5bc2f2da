"""Processes forked from one that has imported what training needs, which takes it seconds."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["vaekit.train", "sklearn.datasets", "torch._dynamo"])


def run_forked(
    arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    """`vaekit ARGUMENTS`, as a shell would run it but for the time of its imports."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        process = FORKS.Process(
            target=be_command, args=(arguments, cwd, dict(environment), output, errors)
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["vaekit", *arguments], timeout)
        return subprocess.CompletedProcess(
            ["vaekit", *arguments], process.exitcode, output.read_text(), errors.read_text()
        )


def speak_into(output: Path, errors: Path) -> None:
    """Have this process's standard output and error be these files."""
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)


def be_command(
    arguments: Sequence[str],
    cwd: Path,
    environment: dict[str, str],
    output: Path,
    errors: Path,
) -> None:
    """`vaekit ARGUMENTS` in this process, which may be of no other use."""
    speak_into(output, errors)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["vaekit", *arguments]
    from vaekit.cli import main

    main()
