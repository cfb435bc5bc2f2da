"""Ask a GPU everything in nine minutes, what matters first; the entry is bench/gpu.sh.

Each part has a process and a time limit of its own, and its answers are on the disk when they are
known: whatever cuts it off, what was asked before is there. Without a GPU the same parts run, tiny.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch

from bench.answers import FILE, PART, answer

ROOT = Path(__file__).parent.parent
ALL_SECONDS = 530  # for all parts; no more than nine minutes
LEAST_SECONDS = 8  # without as much no part is begun
WITHOUT_GPU = 5  # times as long may all take, tiny as it is: there nobody waits for the device
LAST_WORDS = 1500  # characters of what a part that failed said
LONGEST_LINE = 400  # characters of an answer on the screen

OUT = "VAEKIT_OUT"  # the environment variable for where a part may leave a table


class Part(NamedTuple):
    """Questions that share a process."""

    name: str
    seconds: int  # that it may take at most
    asks: str
    arguments: tuple[str, ...]  # of Python


def ask(*questions: str) -> tuple[str, ...]:
    """Questions of bench/questions.py."""
    return "-m", "bench.questions", *questions


def launch(*questions: str) -> tuple[str, ...]:
    """The same, by `accelerate launch` and the repository's config file."""
    config = ("--config_file", "accelerate_config.yaml", "--main_process_port", "0")
    return "-m", "accelerate.commands.launch", *config, *ask(*questions)


def tests(*arguments: str) -> tuple[str, ...]:
    """Tests, or benchmarks; a warning that only a GPU's libraries give shall not end one."""
    options = ("-p", "no:cacheprovider", "-p", "bench.answers", "-W", "default", "-q", "--tb=short")
    return "-m", "pytest", *options, *arguments


def benchmarks(*arguments: str) -> tuple[str, ...]:
    """Benchmarks; without a GPU nothing is timed."""
    return tests(*arguments, *(() if torch.cuda.is_available() else ("--benchmark-disable",)))


EXACTNESS = "tests/training/test_exactness.py"
LATENTS = "bench/test_latents.py::test_against_a_data_loader"
TWO_RANKS = "tests/training/test_two_ranks_on_one_gpu.py"


def other_cuda_tests() -> tuple[str, ...]:
    """The other files may import what is missing here."""
    files = (path for path in sorted(ROOT.glob("tests/**/test_*.py")))
    marked = (path for path in files if "mark.cuda" in path.read_text(encoding="utf-8"))
    names = (path.relative_to(ROOT).as_posix() for path in marked)
    return tuple(name for name in names if name not in (EXACTNESS, TWO_RANKS))


NUM_WITH_TIME_LEFT = 10  # the last parts get what time the others leave

PARTS = (
    Part("machine", 20, "device, driver, versions, rates of copies and products", ask("machine")),
    Part(
        "steps",
        75,
        "a step by precision and batch; images fetched; compiled",
        ask("steps", "fetched", "compiled_steps"),
    ),
    Part(
        "exactness", 100, "twice, resumed, fetched, graph and eager", tests("-m", "cuda", EXACTNESS)
    ),
    Part("tf32", 20, "latents with and without TF32 against a CPU's", ask("tf32")),
    Part("hand-over", 20, "latents to cuML without a copy, with a stand-in", ask("handed_over")),
    Part("tests", 35, "the other CUDA tests", tests("-m", "cuda", *other_cuda_tests())),
    Part("gates", 35, "no host waits, one launch, no allocation", tests("bench/test_gates.py")),
    Part(
        "ratios",
        70,
        "against peers, batch 128",
        benchmarks("bench/test_training.py", "-k", "128 and not conv and not compiled"),
    ),
    Part("mnist", 50, "20 epochs, launched, bf16; latents; SVM", launch("mnist")),
    Part("kernels", 25, "the kernels of a step", ask("kernels")),
    Part("ranks", 40, "two ranks on one GPU, over Gloo", tests("-m", "cuda", TWO_RANKS)),
    Part("latents", 40, "against a DataLoader", benchmarks(f"{LATENTS}[threads=1]")),
    Part("variants", 90, "a step with other settings of PyTorch", ask("variants")),
    Part("float32", 60, "MNIST in float32: what bf16 costs", ask("in_float32")),
    Part("architectures", 60, "MNIST with the other architectures", ask("architectures")),
    Part("seeds", 80, "MNIST twice more, of other seeds", ask("seeds")),
    Part(
        "search",
        120,
        "ten other settings at once, on held-out images",
        ("-m", "bench.search", "10", "auto"),
    ),
    Part(
        "ratios-conv",
        70,
        "the strided architecture against pythae and the reference's, batch 128",
        benchmarks("bench/test_training.py", "-k", "128 and conv and not compiled"),
    ),
    Part(
        "ratios-compiled",
        120,
        "compiled against pythae, batch 128",
        benchmarks("bench/test_training.py", "-k", "compiled"),
    ),
    Part("thumbnails", 80, "a step with a thumbnail and without", ask("thumbnails")),
    Part(
        "ratios-64", 70, "against peers, batch 64", benchmarks("bench/test_training.py", "-k", "64")
    ),
    Part(
        "growth",
        60,
        "a step by batch and latent dimensions",
        benchmarks("bench/test_growth.py", "-k", "latents or step"),
    ),
)


def main() -> int:
    parts = {part.name: part for part in PARTS}
    parser = argparse.ArgumentParser(
        prog="bench/gpu.sh",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            f"  {part.name:12}{part.seconds:4} s at most: {part.asks}" for part in PARTS
        ),
    )
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder for answers.jsonl and log.txt"
    )
    parser.add_argument("part", nargs="*", help="only these", choices=[*parts, []], default=[])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    os.environ |= {FILE: str(given.out / "answers.jsonl"), OUT: str(given.out)}
    wheels = os.environ.get("WHEELS")
    with tempfile.TemporaryDirectory() as site:
        if wheels:
            unpack(Path(wheels), Path(site))
        return ask_all([parts[name] for name in given.part or parts], given.out / "log.txt")


def ask_all(parts: list[Part], log: Path) -> int:
    """The exit status: 1 where a part failed, which does not keep the next from being asked."""
    start = time.monotonic()
    patience = 1 if torch.cuda.is_available() else WITHOUT_GPU
    failed = []
    for part in parts:
        left = patience * ALL_SECONDS - (time.monotonic() - start)
        if left < LEAST_SECONDS:
            os.environ[PART] = part.name
            answer("asked", why="no time was left")
        elif run(part, min(patience * part.seconds, left), log) != 0:
            failed.append(part.name)
    print(f"{time.monotonic() - start:.0f} s; failed: {', '.join(failed) or 'none'}; see {log}")
    return 1 if failed else 0


def run(part: Part, seconds: float, log: Path) -> int:
    """The exit status of a part, which is stopped after so many seconds; 124 then."""
    os.environ[PART] = part.name
    print(f"== {part.name}: {part.asks}", flush=True)
    answers = Path(os.environ[FILE])
    known = answers.stat().st_size if answers.exists() else 0
    begin = log.stat().st_size if log.exists() else 0
    start = time.monotonic()
    with log.open("ab") as file:
        file.write(f"== {part.name}\n".encode())
        file.flush()
        process = subprocess.Popen(
            [sys.executable, *part.arguments],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = 124
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    show(answers, known)
    facts = {"exit": status, "seconds": round(time.monotonic() - start, 1)}
    if status != 0:
        facts["said"] = log.read_bytes()[begin:].decode(errors="replace")[-LAST_WORDS:]
    answer("asked", **facts)
    return status


def show(answers: Path, known: int) -> None:
    """Print what has been answered since the file was `known` bytes long."""
    if answers.exists():
        for line in answers.read_bytes()[known:].decode().splitlines():
            print(line[:LONGEST_LINE])


def unpack(wheels: Path, site: Path) -> None:
    """Have all processes import what lies in a folder of wheels."""
    for wheel in wheels.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)
    os.environ["PYTHONPATH"] = f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{site}"


if __name__ == "__main__":
    sys.exit(main())
