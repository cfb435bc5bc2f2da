"""Small runs that the tests share."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from urllib.error import URLError

import pytest
from filelock import FileLock

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: tensors here are tiny
os.environ["OMP_WAIT_POLICY"] = "passive"  # threads that wait leave the cores to other tests
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

from damage_helpers import Refused, refusal
from faults import FAULTS, injections, table
from fork_helpers import run_forked

from vaekit import errors
from vaekit.config import DataConfig, ModelConfig, SvmConfig, TrainConfig

errors.on_command_line = True  # messages are compared as commands say them

ROOT = Path(__file__).parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Tests and their processes see a GPU only where `-m` asks for those that need one.

    This comes before a test module is imported, in each worker of xdist, too.
    """
    if not wants_cuda(config.getoption("markexpr")):
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def wants_cuda(expression: str) -> bool:
    """Whether an expression of marks names `cuda`, and not to leave it out."""
    return bool(re.search(r"(?<!\bnot )\bcuda\b", expression))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "vaekit.export.graphs" in sys.modules:
        read_the_exporters_library_once()
    for item in items:
        if (mark := item.get_closest_marker("injects")) is not None:
            assert mark.args[0] in FAULTS, item.nodeid
            item.user_properties.append(("injects", (mark.args[0], mark.kwargs.get("times", 1))))


def read_the_exporters_library_once() -> None:
    """Its exporter has PyTorch parse some five hundred functions anew for each graph: a second."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    stats = terminalreporter.stats
    passed = injections(stats.get("passed", []))
    failed = injections(stats.get("failed", []) + stats.get("error", []))
    if passed or failed:
        terminalreporter.section("faults injected")
        for row in table(passed, failed):
            terminalreporter.write_line(row)


def tiny_config(run: Path, **changes: object) -> TrainConfig:
    """Two epochs of six steps on 96 digits, with a model of a few thousand parameters."""
    settings: dict[str, object] = {
        "run": str(run),
        "data": DataConfig(name="digits", limit=96),
        "model": ModelConfig(latent_dim=3, conv_channels=(2, 3), hidden_dims=(16, 8)),
        "epochs": 2,
        "batch_size": 16,
        "warmup_steps": 3,
        "kl_warmup": 0.0,
        "sample_every": 1,
        "checkpoint_every": 1,
        "mixed_precision": "no",
    }
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


TINY_FLAGS = shlex.split(
    "--data.name digits --data.limit 96 --model.latent_dim 3 --model.conv_channels [2,3] "
    "--model.hidden_dims [16,8] --epochs 2 --batch_size 16 --warmup_steps 3 --kl_warmup 0 "
    "--sample_every 1 --checkpoint_every 1 --mixed_precision no"
)


def environment_with(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's, in which the commands of the installed packages are found first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **variables}


def run_command(
    arguments: Sequence[object], *, cwd: Path = ROOT, timeout: float = 180, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command as a user would."""
    return subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env=environment_with(variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def vaekit(
    *arguments: object, cwd: Path = ROOT, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """`vaekit ARGUMENTS` in a process of its own, which is forked: it starts at once."""
    return run_forked(
        [str(argument) for argument in arguments],
        cwd=cwd,
        environment=environment_with(variables),
        timeout=180,
    )


def launch(
    num_processes: int, *arguments: object, cwd: Path = ROOT, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """`accelerate launch` with the repository's config file."""
    return run_command(
        [
            "accelerate",
            "launch",
            "--config_file",
            ROOT / "accelerate_config.yaml",
            "--num_processes",
            num_processes,
            "--main_process_port",
            "0",
            *arguments,
        ],
        cwd=cwd,
        **variables,
    )


def assert_one_line_error(
    result: "subprocess.CompletedProcess[str]", *expected: str, code: int = 2
) -> None:
    """The command said what is wrong in one line, without a traceback, and exited with 2."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("vaekit: error:")]
    assert result.returncode == code, result.stderr
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for text in expected:
        assert text in lines[0]


def anonymous_memory() -> int:
    """Bytes of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+) kB", status)[1])  # type: ignore[index]


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A copy of the run that the first worker to want it makes, for all workers of a suite."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    run, is_made = shared / "shared" / name, shared / f"{name}.made"
    with FileLock(shared / f"{name}.lock"):
        if not is_made.exists():
            shutil.rmtree(run, ignore_errors=True)  # of a worker that failed
            make(run)
            is_made.touch()
    return Path(shutil.copytree(run, factory.mktemp("runs") / name))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run with every stage done; tests must not change it."""
    return made_once(tmp_path_factory, "finished", _finish)


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def _finish(run: Path) -> None:
    from vaekit.report.page import write_report
    from vaekit.runs.run import Run
    from vaekit.stages.evaluate import evaluate
    from vaekit.stages.latents import extract_latents
    from vaekit.stages.svm import fit_svm
    from vaekit.train import train

    train(tiny_config(run))
    extract_latents(Run(run))
    fit_svm(Run(run), SvmConfig())
    evaluate(Run(run), num_samples=3, num_images=10)
    write_report(Run(run))


@pytest.fixture(scope="session", params=["labelled", "unlabelled"])
def folder_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of a folder of files, with latents; tests must change neither."""
    return _folder_run(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def unlabelled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `folder_run` without classes."""
    return _folder_run("unlabelled", tmp_path_factory)


def _folder_run(kind: str, factory: pytest.TempPathFactory) -> Path:
    from image_helpers import write_pets

    from vaekit.runs.run import Run
    from vaekit.stages.latents import extract_latents
    from vaekit.train import train

    def make(place: Path) -> None:
        root = write_pets(place / "images")
        if kind == "unlabelled":
            for path in sorted(root.rglob("*.*")):
                path.rename(root / f"{path.parent.name}-{path.name}")
            for name in ("train", "test"):
                shutil.rmtree(root / name)
        data = DataConfig(name="folder", root=str(root), image_size=8)
        train(tiny_config(place / "run", data=data, batch_size=4, epochs=1))
        extract_latents(Run(place / "run"))

    return made_once(factory, f"{kind}-folder", make) / "run"


@pytest.fixture(scope="session")
def exported_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its bundle, onnx/; tests must not change it."""
    from vaekit.export.bundle import export_run
    from vaekit.runs.run import Run

    def export(run: Path) -> None:
        shutil.copytree(finished_run, run)
        export_run(Run(run))

    return made_once(tmp_path_factory, "exported", export)


@pytest.fixture(scope="session")
def rounded_run(exported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `exported_run` with onnx-fp16/, too; its tests are slow for it."""
    from vaekit.export.bundle import export_run
    from vaekit.runs.run import Run

    def export(run: Path) -> None:
        shutil.copytree(exported_run, run)
        export_run(Run(run), "fp16")

    return made_once(tmp_path_factory, "rounded", export)


@pytest.fixture
def bundle(exported_run: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    shutil.copytree(exported_run / "onnx", tmp_path / "onnx")
    return tmp_path / "onnx"


@pytest.fixture
def ready_graphs(exported_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs of an earlier export, which take a while to make."""
    from vaekit.export import bundle
    from vaekit.export.compare import Reference
    from vaekit.export.manifest import DECODER, ENCODER
    from vaekit.storage.files import read_json, write_bytes

    made = exported_run / "onnx"

    def write(folder: Path, reference: Reference, *_: object) -> dict[str, object]:
        manifest = read_json(made / "manifest.json")
        names = [ENCODER, DECODER] if reference.table is None else [*manifest["graphs"]]
        for name in names:
            write_bytes(folder / name, (made / name).read_bytes())
        graphs = {name: manifest["graphs"][name] for name in names}
        return {key: manifest[key] for key in ("opset", "ir_version", "weights")} | {
            "graphs": graphs
        }

    monkeypatch.setattr(bundle, "write_graphs", write)


@pytest.fixture
def any_precision() -> Iterator[None]:
    """Accelerate keeps what the first run asks for, as its precision, for a whole process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are those of a program that imports vaekit, and no command's."""
    monkeypatch.setattr(errors, "on_command_line", False)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused; its one line."""
    return partial(refusal, capsys)
