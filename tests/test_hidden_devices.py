"""Tests see a GPU only where `-m` asks for those that need one, whatever the machine has."""

import os
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_command, wants_cuda

SHOWN_TO_A_CHILD = """
import os
import subprocess
import sys

import pytest


@pytest.mark.cuda
def test_devices():
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == os.environ["EXPECTED"]
"""


def test_no_gpu_is_seen_here_nor_by_a_process_of_a_test() -> None:
    assert torch.cuda.device_count() == 0
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    assert run_command([sys.executable, "-c", code]).stdout == "-1\n"


def test_some_expressions_of_marks_ask_for_a_gpu() -> None:
    assert all(map(wants_cuda, ("cuda", "cuda and not slow", "not slow and cuda")))
    assert not any(map(wants_cuda, ("", "not cuda", "slow and not cuda", "not install")))


@pytest.mark.slow
@pytest.mark.parametrize(("expression", "devices"), [("cuda", "0"), ("not slow", "-1")])
def test_a_worker_of_several_and_its_children_see_what_was_asked_for(
    expression: str, devices: str, tmp_path: Path
) -> None:
    (tmp_path / "test_seen.py").write_text(SHOWN_TO_A_CHILD)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider"]
    command += ["-c", str(ROOT / "pyproject.toml"), "-m", expression, "-n", "1"]
    result = run_command(
        [*command, tmp_path / "test_seen.py"],
        CUDA_VISIBLE_DEVICES="0",
        EXPECTED=devices,
        PYTHONPATH=os.pathsep.join([str(ROOT / "tests"), str(ROOT)]),
    )
    assert "1 passed" in result.stdout
