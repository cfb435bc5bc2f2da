"""The wheel works where there is nothing else, and a checker of bundles needs no PyTorch."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen
from zipfile import ZipFile

import pytest
from conftest import ROOT, TINY_FLAGS, run_command
from damage_helpers import copy

from vaekit.export.explore import RUNTIME, RUNTIME_FILES

IN_CI = "CI" in os.environ
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not here"),
]

NOT_COPIED = shutil.ignore_patterns(
    ".*_cache", ".benchmarks", ".git", ".venv", "__pycache__", "*.egg-info", "node_modules"
)
NOT_COPIED_FROM_THE_TOP = {"build", "data", "dist", "runs"}  # vaekit/runs is a room
ONLY_IN_THE_TREE = {".npmrc", "package.json", "package-lock.json"}
LICENCES = {"LICENSE", "ThirdPartyNotices.txt"}


def copy_tree(folder: Path) -> Path:
    """The tree as it is now, with onnxruntime-web if it has been fetched."""

    def ignored(place: str, names: list[str]) -> set[str]:
        more = NOT_COPIED_FROM_THE_TOP if Path(place) == ROOT else set()
        return NOT_COPIED(place, names) | more

    shutil.copytree(ROOT, folder, symlinks=True, ignore=ignored)
    fetched = ROOT / "export" / RUNTIME
    if fetched.is_dir():
        (folder / "export" / RUNTIME).mkdir(parents=True)
        for name in RUNTIME_FILES:  # newer than the lock file, so that make fetches nothing
            shutil.copyfile(fetched / name, folder / "export" / RUNTIME / name)
    elif not IN_CI:
        pytest.skip("onnxruntime-web is not here: npm ci --prefix export --omit=dev")
    return folder


def make(target: str, tree: Path) -> "subprocess.CompletedProcess[str]":
    """With this environment's tools in place of newly downloaded ones."""
    binaries = Path(sys.executable).parent
    return run_command(
        ["make", target, "INSTALLED=", f"BIN={binaries}"], cwd=tree, PIP_NO_BUILD_ISOLATION="0"
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree in which the wheel has been built; tests must not change it."""
    tree = copy_tree(tmp_path_factory.mktemp("wheel") / "tree")
    result = make("wheel", tree)
    assert result.returncode == 0, result.stderr
    return tree


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    (wheel,) = (tree / "dist").glob("*.whl")
    return wheel


def test_the_wheel_has_what_the_tree_has_and_onnxruntime_web_with_its_licence(
    tree: Path, wheel: Path
) -> None:
    expected = {f"vaekit/export/{RUNTIME}/{name}" for name in RUNTIME_FILES}
    expected |= {f"vaekit/export/{RUNTIME.parent}/{name}" for name in LICENCES}
    for path in (ROOT / "vaekit").rglob("*"):
        name = path.relative_to(ROOT / "vaekit")
        if path.is_file() and name.parts[0] != "export" and path.suffix != ".pyc":
            expected.add(f"vaekit/{name.as_posix()}")
    for path in (tree / "export").rglob("*"):
        name = path.relative_to(tree / "export")
        if path.is_file() and name.parts[0] != "node_modules" and str(name) not in ONLY_IN_THE_TREE:
            expected.add(f"vaekit/export/{name.as_posix()}")
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == expected
        for name in names - {f"vaekit/export/{RUNTIME.parent}/{name}" for name in LICENCES}:
            assert archive.read(name) == (tree / name).read_bytes()
    assert {"vaekit/py.typed", "vaekit/report/page.html.jinja"} < names
    assert {"vaekit/export/explorer/index.html", "vaekit/export/clients/bundle.mjs"} < names


def test_a_wheel_without_what_pyproject_forgets_is_not_made(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    project = (tree / "pyproject.toml").read_text()
    assert '"clients/*",' in project
    (tree / "pyproject.toml").write_text(project.replace('"clients/*",', ""))
    result = make("wheel", tree)
    assert result.returncode != 0
    assert "export/clients: bundle.mjs" in result.stdout + result.stderr
    assert not (tree / "dist").exists()


@pytest.mark.parametrize(
    ("forgotten", "words"),
    [
        ("explorer/*", "build/unpacked/vaekit/export/explorer: "),
        ("clients/*/*", "export/clients: python"),
        (f"{RUNTIME}/{RUNTIME_FILES[2]}", f"{RUNTIME_FILES[2]}: missing"),
        (f"{RUNTIME.parent}/LICENSE", "onnxruntime-web/LICENSE"),
    ],
)
def test_a_wheel_without_the_explorer_its_runtime_or_the_clients_is_not_whole(
    forgotten: str, words: str, tree: Path, tmp_path: Path
) -> None:
    assert f'"{forgotten}",' in (tree / "pyproject.toml").read_text()
    built = copy(tree, tmp_path / "tree")
    packed = built / "build" / "unpacked" / "vaekit" / "export"
    missing = [path for path in packed.glob(forgotten) if path.is_file()]
    for path in missing:
        path.unlink()
    for folder in {path.parent for path in missing}:
        if not any(folder.iterdir()):  # of which a wheel would know nothing
            folder.rmdir()
    result = make("whole-wheel", built)
    assert result.returncode != 0
    assert words in result.stdout + result.stderr


class Environment:
    """A Python of its own, in which only what is installed can be imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)

    def variables(self, **variables: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1", **variables}

    def run(
        self, command: str, *arguments: object, cwd: Path
    ) -> "subprocess.CompletedProcess[str]":
        program = self.folder / "bin" / command
        return run_command([program, *arguments], cwd=cwd, timeout=900, **self.variables())

    def succeed(self, command: str, *arguments: object) -> str:
        """The output of a command that must succeed, run where there is no checkout."""
        result = self.run(command, *arguments, cwd=self.folder)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def install(self, *requirements: object) -> None:
        self.succeed("python", "-m", "pip", "install", "--quiet", *requirements)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    folder = tmp_path / "environment"
    yield Environment(folder)
    shutil.rmtree(folder)  # gigabytes, which pytest would keep for three runs


@pytest.mark.install
def test_a_bundle_is_checked_and_explored_where_pytorch_was_never_installed(
    environment: Environment, wheel: Path, exported_run: Path, tmp_path: Path
) -> None:
    run = copy(exported_run, tmp_path / "run")
    bundle = run / "onnx"
    environment.install("numpy", "onnx", "onnxruntime")
    environment.install("--no-deps", wheel)
    torch = environment.run("python", "-c", "import torch", cwd=environment.folder)
    assert "No module named 'torch'" in torch.stderr
    assert "whole" in environment.succeed("python", "-m", "vaekit.export.verify", bundle)
    environment.install("jsonargparse[signatures]")  # brings pyyaml
    assert_explores(environment, run)
    assert "whole" in environment.succeed("vaekit", "export", "--check", bundle)
    environment.succeed("vaekit", "--help")


@pytest.mark.install
def test_every_stage_runs_from_the_installed_wheel(
    environment: Environment, wheel: Path, tmp_path: Path
) -> None:
    environment.install(wheel)
    where = environment.succeed("python", "-c", "import vaekit; print(vaekit.__file__)")
    assert Path(where).is_relative_to(environment.folder)
    run = tmp_path / "run"
    environment.succeed("vaekit", "train", *TINY_FLAGS, "--run", run)
    for stage in ("latents", "svm", "report", "export"):
        environment.succeed("vaekit", stage, run)
    assert "whole" in environment.succeed("vaekit", "export", "--check", run / "onnx")
    assert_explores(environment, run)


def assert_explores(environment: Environment, run: Path) -> None:
    """`vaekit explore` serves the page, what it runs on, and the run's bundle."""
    with subprocess.Popen(
        [environment.folder / "bin" / "vaekit", "explore", run, "--port", "0"],
        cwd=environment.folder,
        env=environment.variables(BROWSER="true"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
            assert url
            installed = next(environment.folder.glob("lib/python*/site-packages")) / "vaekit/export"
            for path, file in (
                ("", installed / "explorer/index.html"),
                ("bundle.mjs", installed / "clients/bundle.mjs"),
                ("ort/ort.wasm.min.mjs", installed / RUNTIME / "ort.wasm.min.mjs"),
                ("bundle/manifest.json", run / "onnx/manifest.json"),
            ):
                with urlopen(url[0] + path, timeout=20) as response:
                    assert response.read() == file.read_bytes()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 130
        finally:
            process.kill()  # or it would be waited for
