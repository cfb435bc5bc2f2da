"""The benchmarks run, and one below its floor fails; what they measure is their own affair."""

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, run_command

from vaekit.models.vae import VAE

NUM_BENCHMARKS = 42  # with one thread
NUM_GATES = 5
NUM_WITHOUT_OPTIONAL = 14
NOT_EVERYWHERE = "pythae|scikit-learn-intelex|cuML|CUDA"

# What a machine for training may lack: all but PyTorch, Accelerate, scikit-learn, pytest-benchmark
# and what those bring.
OPTIONAL = {
    *("PIL", "torchvision", "matplotlib", "tensorboard", "rich", "jinja2"),
    *("jsonargparse", "docstring_parser", "onnx", "onnxscript", "onnxruntime", "skl2onnx"),
}
HIDE_OPTIONAL = f"""
import sys
from importlib.machinery import PathFinder


class OtherPackages(PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname.partition(".")[0] in {OPTIONAL}:
            return None
        return super().find_spec(fullname, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = OtherPackages
"""


@pytest.fixture(autouse=True)
def benchmarks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def interleaved() -> ModuleType:
    return importlib.import_module("bench.interleaved")


@pytest.mark.commands
def test_every_benchmark_runs_once() -> None:
    passed, skipped, reasons = _run_quickly()
    assert passed + skipped >= NUM_BENCHMARKS + NUM_GATES
    for reason in reasons:
        assert re.search(NOT_EVERYWHERE, reason)


@pytest.mark.commands
def test_benchmarks_do_without_optional_packages_and_name_them(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE_OPTIONAL)
    passed, _, reasons = _run_quickly(PYTHONPATH=str(tmp_path))
    assert passed >= NUM_WITHOUT_OPTIONAL
    for reason in reasons:
        assert re.search(f"({'|'.join(OPTIONAL)}) is not installed|{NOT_EVERYWHERE}", reason)


@pytest.mark.commands
def test_pythaes_own_net_is_trained_on_the_images_of_a_run(finished_run: Path) -> None:
    pytest.importorskip("pythae", reason="pythae is not installed (vaekit[peers])")
    result = run_command([sys.executable, "-W", "ignore", "-m", "bench.pythae_net", finished_run])
    assert result.returncode == 0, result.stderr
    assert re.search(r"epochs: 1, test MSE 0\.\d+, SVM accuracy 0\.\d+", result.stdout)


@pytest.fixture
def gpu() -> ModuleType:
    return importlib.import_module("bench.gpu")


@pytest.mark.commands
def test_the_questions_to_a_gpu_are_asked_without_one_tiny(tmp_path: Path) -> None:
    parts = ["machine", "steps", "mnist", "variants", "ranks"]
    result = run_command(["bench/gpu.sh", tmp_path / "out", *parts], PYTHON=sys.executable)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = (tmp_path / "out" / "answers.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    assert [each["part"] for each in answers if "exit" in each] == parts
    asked = {each["question"] for each in answers}
    assert {"versions", "step", "step, images fetched", "run", "SVM of the run"} <= asked
    assert not [each for each in answers if "why" in each and each["part"] != "ranks"]
    (skipped,) = (each["why"] for each in answers if each["part"] == "ranks" and "why" in each)
    assert "needs a GPU" in skipped
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "answers.jsonl",
        "log.txt",
    ]


@pytest.mark.slow
def test_what_a_part_that_is_cut_off_has_answered_is_on_the_disk(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VAEKIT_ANSWERS", str(tmp_path / "answers.jsonl"))
    monkeypatch.setenv("VAEKIT_PART", "")
    code = (
        "from bench.answers import answer; answer('known', figure=1); import time; time.sleep(600)"
    )
    endless = gpu.Part("endless", 6, "", ("-c", code))
    assert gpu.run(endless, endless.seconds, tmp_path / "log.txt") == 124
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    known, end = map(json.loads, lines)
    assert known == {"part": "endless", "question": "known", "figure": 1}
    assert (end["part"], end["exit"]) == ("endless", 124)


def test_the_parts_of_the_questions_to_a_gpu_fit_their_time_and_name_files_that_exist(
    gpu: ModuleType,
) -> None:
    limits = [part.seconds for part in gpu.PARTS]
    assert sum(limits[: -gpu.NUM_WITH_TIME_LEFT]) <= gpu.ALL_SECONDS <= 9 * 60
    for part in gpu.PARTS:
        for argument in part.arguments:
            if argument.startswith(("tests/", "bench/")):
                assert (ROOT / argument.partition("::")[0]).exists(), argument


def _run_quickly(*arguments: str, **variables: str) -> tuple[int, int, list[str]]:
    """Numbers passed and skipped of one round of `pytest bench/`, and why they were skipped."""
    command = [sys.executable, "-m", "pytest", "bench/", "-q", "--benchmark-disable"]
    command += ["-p", "no:cacheprovider", *arguments]
    result = run_command(command, timeout=600, **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    counts = dict(reversed(each) for each in re.findall(r"(\d+) (passed|skipped)", result.stdout))
    reasons = re.findall("^SKIPPED .*", result.stdout, re.MULTILINE)
    return int(counts["passed"]), int(counts.get("skipped", 0)), reasons


def test_two_ways_are_timed_in_turns(interleaved: ModuleType) -> None:
    turns = []
    contest = _contest(
        interleaved,
        ours=lambda: turns.append("A"),
        theirs=lambda: turns.append("B"),
        limit=lambda: turns.append("|") or 0.5,
    )
    peer_times, limits = interleaved.take_turns(_Benchmark(), contest, warm=False)
    assert "".join(turns) == "|ABB|A|ABB|A"
    assert len(peer_times) == contest.rounds
    assert limits == [0.5] * contest.rounds


def test_two_ways_that_give_different_results_are_not_timed(interleaved: ModuleType) -> None:
    def agree(ours: int, theirs: int) -> None:
        assert ours == theirs

    contest = _contest(interleaved, ours=lambda: 1, theirs=lambda: 2, agree=agree)
    with pytest.raises(AssertionError):
        interleaved.hold(None, contest, threads=1, floor=1)


@pytest.mark.parametrize(
    ("ratio", "median_ratio", "fails"),
    [(1.2, 1.1, False), (0.9, 1.1, False), (1.1, 0.9, False), (0.9, 0.8, True)],
)
def test_what_is_below_its_floor_is_named(
    interleaved: ModuleType, ratio: float, median_ratio: float, fails: bool
) -> None:
    fault = _outcome(interleaved, ratio=ratio, median_ratio=median_ratio).fault()
    if not fails:
        assert fault is None
        return
    for part in ("encode, batch 1", "PyTorch eager", "0.90", "at least 1", "ratios.toml"):
        assert part in fault


def test_a_floor_for_the_bound_is_held_against_the_bound(interleaved: ModuleType) -> None:
    def fault(lower_ratio: float) -> str | None:
        return _outcome(interleaved, lower_ratio=lower_ratio, is_floor_for_bound=True).fault()

    assert fault(1.0) is None
    assert "not below 0.99" in fault(0.99)


@pytest.mark.parametrize("num_rounds", [5, 8, 11, 30])
def test_the_bound_is_below_the_true_median_nineteen_times_in_twenty(
    interleaved: ModuleType, num_rounds: int
) -> None:
    draws = np.random.default_rng(0).lognormal(size=(4000, num_rounds))  # of median 1
    num_below = sum(interleaved.lower_bound(list(draw)) <= 1 for draw in draws)
    assert 0.945 <= num_below / len(draws) <= 0.99


def test_a_call_that_does_the_work_repeatedly_is_timed_by_the_piece(
    interleaved: ModuleType,
) -> None:
    contest = _contest(interleaved, ours=lambda: None, theirs=lambda: None, repeats=10)
    outcome = interleaved.hold(_Benchmark(seconds=5.0), contest, threads=1, floor=0)
    assert outcome.best == 0.5


def test_a_peer_takes_its_turns_within_its_own_settings(interleaved: ModuleType) -> None:
    turns: list[str] = []

    @contextmanager
    def its_own() -> Iterator[None]:
        turns.append("(")
        yield
        turns.append(")")

    contest = _contest(
        interleaved,
        ours=lambda: turns.append("A"),
        theirs=lambda: turns.append("B"),
        theirs_within=its_own,
    )
    interleaved.take_turns(_Benchmark(), contest, warm=False)
    assert "".join(turns) == "A(B)(B)AA(B)(B)A"


def test_the_table_tells_how_near_the_hardware_is(interleaved: ModuleType) -> None:
    lines = interleaved.table(
        [
            _outcome(interleaved, best=0.2, limit=0.1),
            _outcome(interleaved, work="decode"),
            _outcome(interleaved, peer="skl2onnx"),
        ]
    )
    assert [lines[1], lines[4]] == ["encode, batch 1", "decode"]
    assert lines[2].split()[-2:] == ["100.00", "50%"]
    assert lines[3].split()[-2:] == ["-", "-"]
    assert max(map(len, lines)) <= 120


def test_what_takes_too_much_memory_is_named() -> None:
    memory = importlib.import_module("bench.memory")
    ours, theirs = memory.Peak(500, 700, 0), memory.Peak(100, 250, 0)  # 200 and 150 of their own
    appetite = memory.Appetite("train", ours, "the loop", theirs, 0.75)
    assert appetite.fault() is None
    fault = appetite._replace(floor=0.8).fault()
    for part in ("train", "the loop", "0.75", "at least 0.8"):
        assert part in fault
    assert memory.Appetite("export", ours).fault() is None
    *_, with_peer, alone = memory.memory_table([appetite, memory.Appetite("export", ours)])
    assert with_peer.split()[-2:] == ["0.75", "0.75"]
    assert alone.split()[-2:] == ["-", "-"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_the_peak_is_that_of_the_work_alone() -> None:
    code = """
import numpy as np
from bench.stages import peak_of
np.ones(100_000_000, np.uint8).sum()
peak = peak_of(lambda: np.ones(50_000_000, np.uint8).sum())
print(peak.most - peak.before)
"""
    result = run_command([sys.executable, "-c", code])
    assert result.returncode == 0, result.stderr
    assert 45e6 <= int(result.stdout) <= 60e6


@pytest.mark.slow
def test_a_stage_has_a_process_of_its_own(tmp_path: Path) -> None:
    memory = importlib.import_module("bench.memory")
    generator = np.random.default_rng(0)
    np.save(tmp_path / "latents.npy", generator.normal(size=(50, 4)).astype(np.float32))
    np.save(tmp_path / "labels.npy", np.arange(50) % 2)
    peak = memory.measure("fit", tmp_path)
    assert 50e6 < peak.before < peak.most < peak.before + 50e6
    with pytest.raises(RuntimeError, match=r"No such file.*latents\.npy"):
        memory.measure("fit", tmp_path / "none")


def test_sizes_are_measured_up_and_down() -> None:
    growth = importlib.import_module("bench.growth")
    turns: list[int] = []

    def call(size: int) -> float:
        turns.append(size)
        return size / len(turns)

    calls = {size: lambda size=size: call(size) for size in (1, 10, 100)}
    costs = growth.measure(_Benchmark(), growth.Growth("work", "images", calls, rounds=2))
    assert turns == [1, 10, 100, 100, 10, 1]
    assert costs.seconds == {1: 1 / 6, 10: 10 / 5, 100: 100 / 4}
    assert growth.markdown(costs)[-1] == "| 100 | 25,000.00 | 100x | 150.00x |"


def test_a_peer_finds_the_libraries_as_they_come() -> None:
    defaults = importlib.import_module("bench.defaults")
    cudnn, cpu = torch.backends.cudnn, torch.device("cpu")
    before = cudnn.deterministic
    with defaults.set_for_training(cpu):
        assert cudnn.deterministic
        with defaults.library_defaults(cpu, 2**20):
            assert not cudnn.deterministic
        assert cudnn.deterministic
    assert cudnn.deterministic == before


# In a process of its own: what the tests before it have freed may have room for a gradient.
GRADIENTS = """
import torch
from bench import defaults

c_library, cpu = defaults._glibc(), torch.device("cpu")

def num_mapped_for_a_gradient(size=10_000_000):
    before = c_library.mallinfo2().hblks
    gradient = torch.empty(size)
    mapped = c_library.mallinfo2().hblks - before
    del gradient
    return mapped

with defaults.set_for_training(cpu):
    print(num_mapped_for_a_gradient())
    with defaults.library_defaults(cpu, 2**20):
        print(num_mapped_for_a_gradient())
    print(num_mapped_for_a_gradient())
print(num_mapped_for_a_gradient(200_000_000))  # a smaller one may find room that was not trimmed
"""


@pytest.mark.slow
def test_a_peer_gets_none_of_the_memory_that_vaekit_made_the_process_keep() -> None:
    defaults = importlib.import_module("bench.defaults")
    if defaults._glibc() is None:
        pytest.skip("the C library is not glibc 2.33 or newer")
    result = run_command([sys.executable, "-c", GRADIENTS])
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["0", "1", "0", "1"]


@pytest.mark.slow
def test_a_step_has_the_operations_that_its_layers_have() -> None:
    batch_size, linears = 2, 10 * 256 + 256 * 512 + 512 * 18432  # of the decoder
    encoder = 26**2 * 9 * 16 + 24**2 * 9 * 16 * 32 + linears + 10 * 256  # mean and log-variance
    decoder = linears + 24**2 * 9 * 32 * 16 + 26**2 * 9 * 16
    forward = 2 * batch_size * (encoder + decoder)  # a multiplication and an addition each
    # Backward there are two products for each one, but nobody needs the images' gradient.
    images_gradient = 2 * batch_size * 26**2 * 9 * 16
    hardware = importlib.import_module("bench.hardware")
    with torch.device("meta"):
        vae = VAE()
    assert hardware.step_flops(vae, batch_size) == 3 * forward - images_gradient


def test_a_contest_without_a_floor_is_refused(interleaved: ModuleType) -> None:
    with pytest.raises(LookupError, match="add it"):
        interleaved.read_floor("cpu", "encode, batch 1", "PyTorch eagre")


class _Benchmark:
    """pytest-benchmark's fixture, as far as turns go; every call of ours takes `seconds`."""

    group: str

    def __init__(self, seconds: float = 1.0) -> None:
        self.extra_info: dict[str, Any] = {}
        self._seconds = seconds

    def pedantic(
        self,
        target: Callable[[], Any],
        rounds: int,
        setup: Callable[[], None] = lambda: None,
        teardown: Callable[[], None] = lambda: None,
    ) -> None:
        for _ in range(rounds):
            setup()
            target()
            teardown()
        data = [self._seconds] * rounds
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=data))


def _contest(interleaved: ModuleType, **changes: object) -> Any:
    settings = {"work": "work", "peer": "peer", "agree": lambda ours, theirs: None, "rounds": 4}
    return interleaved.Contest(**(settings | changes))


def _outcome(interleaved: ModuleType, **changes: object) -> Any:
    settings = {
        "work": "encode, batch 1",
        "peer": "PyTorch eager",
        "device": "cpu",
        "threads": 2,
        "rounds": 4,
        "best": 1.0,
        "peer_best": 1.2,
        "ratio": 1.2,
        "median_ratio": 1.2,
        "lower_ratio": 1.1,
        "floor": 1.0,
        "is_floor_for_bound": False,
        "limit": 0.0,
        "note": "",
    }
    return interleaved.Outcome(**(settings | changes))
