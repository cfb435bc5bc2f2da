"""A disk that is full, read-only or over a quota within a write costs that write alone."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import pytest
from conftest import TINY_FLAGS, assert_one_line_error, run_command
from damage_helpers import Refused, copy, snapshot
from fork_helpers import FORKS
from image_helpers import write_noise
from kill_helpers import assert_same_result

from vaekit import train as train_module
from vaekit.cli import main
from vaekit.config import DataConfig
from vaekit.export import bundle as bundle_module
from vaekit.images.sets import load_images
from vaekit.report import page as report_module
from vaekit.stages import latents as latents_module
from vaekit.stages import svm as svm_module
from vaekit.storage.files import reserve

QUICK = {"step-00000012.safetensors", "metrics.jsonl", "test_latents.npy", "svm.safetensors"}
DISK_BYTES = 24 * 2**20


class Write(NamedTuple):
    """A write of a command: the call that begins it, and the file that it is to make."""

    command: str
    where: Any
    function: str
    call: int
    file: str


WRITES = [
    Write("train", train_module, "save_checkpoint", 2, "checkpoints/step-00000012.safetensors"),
    Write("train", train_module, "write_weights", 2, "model.safetensors"),
    Write("train", train_module, "write_metrics", 2, "metrics.jsonl"),
    Write("train", train_module, "append_environment", 1, "environment.json"),
    Write("train", train_module, "write_pictures", 2, "samples/epoch-001.png"),
    Write("train", train_module, "measure_baselines", 1, "baselines/train_scores.npy"),
    Write("latents", latents_module, "encode_into", 2, "latents/test_latents.npy"),
    Write("latents", latents_module, "write_array", 2, "latents/test_labels.npy"),
    Write("latents", latents_module, "write_index", 1, "latents/index.parquet"),
    Write("latents", latents_module, "write_sealed", 1, "latents/latents.json"),
    Write("svm", svm_module, "write_table", 1, "svm/svm.safetensors"),
    Write("svm", svm_module, "write_sealed", 1, "svm/metrics.json"),
    Write("report", report_module, "draw_losses", 1, "figures/loss.png"),
    Write("report", report_module, "render", 1, "report.html"),
    Write("export", bundle_module, "write_golden", 1, "onnx/golden.json"),
]


# What a second run of the same command may write in another way: times and places.
TIMED = {"config.yaml", "environment.json", "metrics.jsonl", "svm/metrics.json", "report.html"}


@contextmanager
def full_disk(folder: Path, num_bytes: int) -> Iterator[None]:
    """Nothing more than `num_bytes` fits on a folder's disk."""
    with TemporaryFile(dir=folder) as ballast:
        room = os.statvfs(folder)
        os.posix_fallocate(ballast.fileno(), 0, room.f_bavail * room.f_frsize - num_bytes)
        yield


@contextmanager
def quota(_: Path, num_bytes: int) -> Iterator[None]:
    """No file may be longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def read_only(folder: Path, _: int) -> Iterator[None]:
    mount("--bind", folder, folder)
    try:
        mount("-o", "remount,bind,ro", folder)
        yield
    finally:
        unmount(folder)


class Fault(NamedTuple):
    """What becomes of the disk of a folder, for as long as a context lasts."""

    strikes: Callable[[Path, int], AbstractContextManager[None]]
    words: tuple[str, ...]  # that it must be told in


FULL_DISK = Fault(full_disk, ("No space left on device", "free space"))
QUOTA = Fault(quota, ("File too large", "ulimit -f"))
READ_ONLY = Fault(read_only, ("Read-only file system", "writable"))


def mount(*arguments: object) -> None:
    command = ["mount", *map(str, arguments)]
    if shutil.which("mount") is None:
        pytest.skip("needs mount")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"may not mount here ({result.stderr.strip()})")


def unmount(path: Path) -> None:
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, small."""
    path = tmp_path / "disk"
    path.mkdir()
    mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", path)
    yield path
    unmount(path)


def files(folder: Path) -> dict[str, bytes]:
    found = snapshot(folder)
    return {name: content for name, content in found.items() if isinstance(content, bytes)}


def before_call(monkeypatch: pytest.MonkeyPatch, write: Write, happens: Callable[[], None]) -> None:
    """Have something happen before the call that begins a write."""
    function, calls = getattr(write.where, write.function), []

    def watched(*arguments: Any, **settings: Any) -> Any:
        calls.append(arguments)
        if len(calls) == write.call:
            happens()
        return function(*arguments, **settings)

    monkeypatch.setattr(write.where, write.function, watched)


def cases() -> Iterator[object]:
    """Every fault in every write; those of the common suite are a disk that is full."""
    for fault in (FULL_DISK, QUOTA, READ_ONLY):
        for write in WRITES:
            is_quick = fault is FULL_DISK and Path(write.file).name in QUICK
            marks = [] if is_quick else [pytest.mark.faults]
            if write.command != "export" or fault is not READ_ONLY:
                # Half a bundle can't be removed from a disk that became read-only.
                name = f"{fault.strikes.__name__}-{write.file}"
                yield pytest.param(fault, write, marks=marks, id=name)


@pytest.mark.parametrize(("fault", "write"), list(cases()))
@pytest.mark.injects(4)
def test_a_write_that_the_disk_refuses_leaves_what_was_there_and_is_made_good_afterwards(
    fault: Fault,
    write: Write,
    request: pytest.FixtureRequest,
    finished_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Refused,
) -> None:
    folder = request.getfixturevalue("tmp_path" if fault is QUOTA else "disk")
    whole = finished_run
    if write.command == "export":
        whole = request.getfixturevalue("exported_run")
        request.getfixturevalue("ready_graphs")
    run, expected = folder / whole.name, files(whole)
    before: dict[str, bytes] = {}
    if write.command == "train":
        command = ["train", *TINY_FLAGS, "--run", run]
    else:
        copy(whole, run)
        command = [write.command, run]

    def strike() -> None:
        before.update(files(run))
        file = run / write.file
        if write.command == "export":  # a bundle is built beside its place
            file = run / ".tmp-onnx" / file.name
        file.parent.mkdir(exist_ok=True)
        stricken.enter_context(fault.strikes(file.parent, len(expected[write.file]) // 2))

    with ExitStack() as stricken, monkeypatch.context() as patch:
        before_call(patch, write, strike)
        line = refused(*command)
    for words in (Path(write.file).name, *fault.words):
        assert words in line
    assert files(run) == {name: before[name] for name in before if ".tmp-onnx" not in name}

    main([str(argument) for argument in command])
    assert_same_result(run, whole)
    for name, content in files(run).items():
        is_timed = name in TIMED or name.startswith("checkpoints/")
        assert content == expected[name] or is_timed, name


@pytest.mark.parametrize("command", ["train", "latents", "svm", "report", "export"])
@pytest.mark.injects(4)
def test_a_run_folder_on_a_read_only_disk_is_named_before_any_work(
    command: str, finished_run: Path, disk: Path, refused: Refused
) -> None:
    run = copy(finished_run, disk / "run")
    (run / ".lock").unlink(missing_ok=True)
    before = snapshot(disk)
    mount("-o", "remount,ro", disk)
    flags = [*TINY_FLAGS, "--run"] if command == "train" else []
    line = refused(command, *flags, run)
    assert f"{run}/.lock: Read-only file system" in line
    assert snapshot(disk) == before


@pytest.mark.injects(4)
def test_a_disk_that_is_full_from_the_start_leaves_a_folder_to_start_in(
    finished_run: Path, disk: Path, refused: Refused
) -> None:
    run = disk / "run"
    with full_disk(disk, 0):
        line = refused("train", *TINY_FLAGS, "--run", run)
    assert f"{run}/config.yaml: No space left on device; free space" in line
    assert [path.name for path in run.iterdir()] == [".lock"]
    main(["train", *TINY_FLAGS, "--run", str(run)])
    assert_same_result(run, finished_run)


def make_folder(root: Path) -> DataConfig:
    write_noise(root, "a", "b", count=8)
    return DataConfig(name="folder", root=str(root), image_size=256)


@pytest.mark.injects(4)
def test_images_for_which_the_disk_has_no_room_are_decoded_into_memory(disk: Path) -> None:
    config, cache = make_folder(disk / "images"), disk / "images" / ".vaekit-cache"
    with full_disk(disk, 2**20):  # of the three megabytes that they take
        process = FORKS.Process(target=load_images, args=(config, 0))
        process.start()
        process.join(60)
    assert process.exitcode == 0, "a full disk kills who writes to it through a memory map"
    assert not [path for path in cache.rglob("shard-*") if path.is_file()]
    load_images(config, 0)
    assert len([*cache.rglob("shard-*.json")]) == 1


@pytest.mark.injects(4)
def test_a_quota_on_files_keeps_images_in_memory_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_folder(tmp_path / "images")
    with quota(tmp_path, 2**20):
        in_memory = load_images(config, 0)
    assert "can't be kept there ([Errno 27] File too large), only in memory" in (
        capsys.readouterr().err
    )
    assert load_images(config, 0).sha256() == in_memory.sha256()


def test_a_file_is_reserved_to_its_last_byte_or_refused(disk: Path) -> None:
    sparse = disk / "sparse"
    with sparse.open("wb") as file:
        file.truncate(2**20)
    assert sparse.stat().st_blocks == 0
    reserve(sparse)
    assert sparse.stat().st_blocks * 512 == sparse.stat().st_size == 2**20
    with sparse.open("wb") as file:
        file.truncate(2 * DISK_BYTES)
    with pytest.raises(OSError, match="No space left"):
        reserve(sparse)


@pytest.mark.injects(4)
def test_output_that_the_disk_refuses_is_one_line(
    finished_run: Path, disk: Path, refused: Refused
) -> None:
    grid = disk / "grid.png"
    with full_disk(disk, 0):
        line = refused("generate", finished_run, "--output", grid)
    assert f"{grid}: No space left on device" in line
    assert not grid.exists()


@pytest.mark.faults
@pytest.mark.injects(4)
def test_a_full_standard_output_is_one_line(finished_run: Path) -> None:
    image = finished_run / "samples" / "epoch-000.png"
    command = f"{sys.executable} -m vaekit predict {finished_run} {image} >/dev/full"
    result = run_command(["bash", "-c", command])
    assert_one_line_error(result, "a file or the output: No space left on device; free space")
