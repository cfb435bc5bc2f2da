"""Every command of the documents runs, as it is written but on a small run."""

import ast
import contextlib
import io
import json
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pyarrow
import pytest
from browser_helpers import require_node
from conftest import ROOT, TINY_FLAGS, run_command, vaekit
from PIL import Image
from pyarrow import parquet

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
INSTALLING = ("make ", "python3 -m venv", ".venv/bin/pip", "npm ")
TINY_MODEL = TINY_FLAGS[TINY_FLAGS.index("--model.latent_dim") :]

OWN_IMAGES = re.compile(r"--data\.name (folder|arrays|idx|datasets)\b")


def commands_of(document: Path) -> list[str]:
    """The lines of the sh blocks of a document, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := line.split("#")[0].strip())]


def made_small(command: str) -> str:
    """The command with a tiny model and, in place of a download, scikit-learn's digits."""
    if command.startswith("python bench/scale.py"):
        return re.sub(r"\b\d{5,}\b", "400", command)
    if "vaekit train" not in command and "vaekit/train.py" not in command:
        return command
    command = re.sub(r"--data\.holdout \d+", "--data.holdout 100", command)
    flags = TINY_MODEL if OWN_IMAGES.search(command) else TINY_FLAGS
    if "--model.width" in command or "--model.architecture conv" in command:
        start = flags.index("--model.latent_dim")
        flags = flags[:start] + flags[start + 6 :]  # of the other architecture
    return f"{command} {shlex.join(flags)}"


def run_as_typed(command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """By a shell, but for `vaekit` with plain words, which would take seconds to import PyTorch."""
    program, *words = shlex.split(command)
    if program == "vaekit" and not set("|&;<>$*?~`") & set(command):
        return vaekit(*words, cwd=cwd)
    return run_command(["bash", "-c", command], cwd=cwd)


def explore(command: str, cwd: Path) -> None:
    """Serve until the page has been fetched, then press Ctrl-C."""
    require_node("onnxruntime-web")
    with subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command), "--port", "0"],
        cwd=cwd,
        env={**os.environ, "BROWSER": "true"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert address is not None
        with urlopen(address[0]) as page:
            assert page.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 128 + signal.SIGINT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like a checkout, with a user's images, where runs may be made."""
    for name in ("vaekit", "docs", "bench", "accelerate_config.yaml", "Makefile", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    generator = np.random.default_rng(0)
    for index in range(40):
        for name in ("cats", "dogs"):
            path = tmp_path / "my_images" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    for name in ("glyphs", "icons"):
        (tmp_path / name).symlink_to("my_images")
    (tmp_path / "letters").mkdir()
    for index in range(5):
        pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "letters" / f"{index}.png")
    images = generator.integers(0, 256, (60, 20, 20), dtype=np.uint8)
    labels = np.arange(60, dtype=np.uint8) % 3
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    (tmp_path / "my_idx").mkdir()
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
        (tmp_path / "my_idx" / f"train-{name}-ubyte").write_bytes(header + array.tobytes())
    files = sorted((tmp_path / "my_images" / "cats").iterdir())
    rows = {"image": [path.read_bytes() for path in files], "label": ["cat"] * len(files)}
    parquet.write_table(pyarrow.table(rows), tmp_path / "my_set.parquet")
    return tmp_path


@pytest.mark.commands
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_a_document_runs(
    document: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in commands_of(document):
        if command.startswith(INSTALLING):
            continue  # the suite runs in what these make
        if command.startswith(("pytest ", "bench/gpu.sh")):
            continue  # the benchmarks run in test_bench, and the suite is this one
        if command.startswith("vaekit explore") and "--output" not in command:
            explore(command, cwd=checkout)
            continue
        result = run_as_typed(made_small(command.replace(".venv/bin/", "")), checkout)
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    if document.name == "sharing.md":  # whose Python goes on with what its commands made
        monkeypatch.chdir(checkout)
        names: dict[str, object] = {}
        for cell in cells_of(document):
            run_cell(cell, names)


def test_the_make_targets_of_the_readme_exist_and_do_what_it_spells_out() -> None:
    readme = commands_of(ROOT / "README.md")
    named = {command.split()[1] for command in readme if command.startswith("make ")}
    assert {"demo", "test"} <= named
    for target in named:
        recipe = run_command(["make", "--dry-run", "--always-make", target])
        assert recipe.returncode == 0, recipe.stderr
    recipe = run_command(["make", "--dry-run", "--always-make", "demo"]).stdout
    spelled_out = [command for command in readme if command.startswith(".venv/bin/vaekit")]
    assert spelled_out
    for command in spelled_out:
        assert command in recipe


def cells_of(document: Path) -> list[str]:
    """The Python of a notebook, or of the python blocks of a document."""
    text = document.read_text()
    if document.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return ["".join(each["source"]) for each in cells if each["cell_type"] == "code"]
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_cell(cell: str, names: dict[str, object]) -> object:
    """What a notebook would show of it: the value of its last expression."""
    *before, last = ast.parse(cell).body
    exec(compile(ast.Module([*before], []), "<cell>", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    exec(compile(ast.Module([last], []), "<cell>", "exec"), names)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["python.md", "notebook.ipynb"])
def test_the_python_of_a_document_runs_from_top_to_bottom(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_python: None
) -> None:
    """Without a kernel, which would be a dozen packages more: of notebooks we use cells alone."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        shown = [run_cell(cell, names) for cell in cells_of(ROOT / "docs" / name)]
    pages = [each._repr_html_() for each in shown if hasattr(each, "_repr_html_")]
    assert any("test loss" in page and "image/png" in page for page in pages)
    assert "Error" not in "".join(pages)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_shows_exists(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)|src=\"([^\":]+)\"", document.read_text())
    for markdown, html in links:
        assert (document.parent / (markdown or html)).exists(), markdown or html
