"""How a folder of made-up 28x28 images is fed to training: `python bench/scale.py FOLDER 10000`.

For each number of images it makes that many names in FOLDER, hard links of some PNG files, has
them decoded (or, with --filled, has their shards filled with noise in place of decoding), and
starts training on them in a process of its own: seconds from its launch to the end of its first
step, memory, and how many images a second its feed gives. A set is removed once it is measured.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
NUM_TEST = 10_000  # images at most, a tenth of fewer
IN_A_FOLDER = 5_000  # files
LINKS = 20_000  # to one file at most, of the 65,000 that ext4 allows
NUM_CLASSES = 10
BATCH_SIZE = 128
NUM_STEPS = 30
FED_BATCHES = 2_000
COLUMNS = {  # what is found, and decimals
    "decoding_seconds": 0, "decoding_cpu_seconds": 0, "decoding_mb": 0,
    "first_seconds": 1, "first_cpu_seconds": 1, "seconds": 1, "cpu_seconds": 1,
    "anonymous_mb": 0, "fetched_images_per_second": 0, "resident_images_per_second": 0,
}  # fmt: skip


def make(root: Path, count: int) -> None:
    """A training and a test set of ten classes."""
    from PIL import Image

    generator = np.random.default_rng(0)
    originals = root.parent / f".{root.name}-originals"
    originals.mkdir(parents=True, exist_ok=True)
    num_originals = max(256, count // LINKS)
    for index in range(num_originals):
        pixels = generator.integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(originals / f"{index}.png")
    num_test = min(NUM_TEST, count // 10)
    for side, number in (("train", count - num_test), ("test", num_test)):
        for index in range(number):
            class_name, place = index % NUM_CLASSES, index // NUM_CLASSES
            folder = root / side / str(class_name) / f"{place // IN_A_FOLDER:04d}"
            if place % IN_A_FOLDER == 0:
                folder.mkdir(parents=True)
            os.link(originals / f"{index % num_originals}.png", folder / f"{place:07d}.png")
    shutil.rmtree(originals)


def decode(root: str, filled: bool) -> dict[str, Any]:
    """Have the cache made; `filled` with noise, all else as it is for images."""
    from vaekit.config import DataConfig
    from vaekit.images import shards
    from vaekit.images.decode import Decoded
    from vaekit.images.sets import load_images
    from vaekit.images.survey import Page, Surveyed

    if filled:
        plain = Surveyed((Page(has_colour=False, has_alpha=False, border=0.0),))
        generator = np.random.default_rng(os.getpid())

        def fill(_sources: Any, pixels: Any, *_: Any) -> Decoded:
            pixels[:] = generator.integers(0, 256, pixels.shape, dtype=np.uint8)
            return Decoded({}, [()] * len(pixels))

        shards.survey = lambda files, *_, **__: [plain] * len(files)
        shards.decode_files = fill  # type: ignore[assignment]
    memory, began, worked = Peak(), time.perf_counter(), time.process_time()
    load_images(DataConfig(name="folder", root=root), 0)
    return {
        "decoding_seconds": time.perf_counter() - began,
        "decoding_cpu_seconds": time.process_time() - worked,
        "decoding_mb": memory.stop() / 1e6,
    }


class Enough(Exception):  # noqa: N818 - no fault
    """The steps that are measured are done."""


def start(root: str, launched: float) -> dict[str, Any]:
    """Train for some steps, and see what the feed gives by itself."""
    import torch

    from vaekit import train as module
    from vaekit.config import DataConfig, TrainConfig
    from vaekit.training.feeds import FetchingFeed, ResidentFeed
    from vaekit.training.step import Stepper

    found: dict[str, Any] = {}
    advance = Stepper.advance

    def noted(stepper: Stepper, step: int) -> None:
        advance(stepper, step)
        if not found:
            found.update(seconds=time.time() - launched, cpu_seconds=time.process_time())
        if step + 1 == NUM_STEPS:
            raise Enough

    Stepper.advance = noted  # type: ignore[method-assign]
    config = TrainConfig(
        data=DataConfig(name="folder", root=root, resident_limit=1000),
        run=f"{root}-run",
        epochs=1,
        batch_size=BATCH_SIZE,
        mixed_precision="no",
    )
    memory = Peak()
    try:
        module.train(config)
    except Enough:
        found["anonymous_mb"] = memory.stop() / 1e6
    shutil.rmtree(f"{root}-run")

    images = module.load_images(config.data, config.seed).train.pixels
    device, share = torch.device("cpu"), slice(0, BATCH_SIZE)
    feeds: dict[str, Any] = {"fetched": FetchingFeed(images, BATCH_SIZE, share, device)}
    if images.nbytes < 2**30:
        feeds["resident"] = ResidentFeed(images, BATCH_SIZE, share, device)
    best = dict.fromkeys(feeds, 0.0)
    num_batches = min(FED_BATCHES, len(images) // BATCH_SIZE)
    for turn in range(4):
        order = np.random.default_rng(turn).permutation(len(images))
        for name, feed in feeds.items():
            feed.start_epoch(order, 0)
            began = time.perf_counter()
            for number in range(num_batches):
                feed.make_ready()
                feed.batch(torch.tensor([number]))
            rate = num_batches * BATCH_SIZE / (time.perf_counter() - began)
            best[name] = max(best[name], rate)
    return found | {f"{name}_images_per_second": rate for name, rate in best.items()}


class Peak:
    """The most memory of this process that no file backs, looked at ten times a second."""

    def __init__(self) -> None:
        self._most, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            status = Path("/proc/self/status").read_text()
            anonymous = re.search(r"RssAnon:\s+(\d+) kB", status)
            self._most = max(self._most, 1024 * int(anonymous[1]) if anonymous else 0)


def in_a_process(work: str, *arguments: str) -> dict[str, Any]:
    """What one of the functions above finds in a process of its own."""
    result = subprocess.run(
        [sys.executable, __file__, "--do", work, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def measure(folder: Path, count: int, filled: bool) -> dict[str, Any]:
    root = folder / f"made-up-{count}"
    try:
        make(root, count)
        made = in_a_process("decode", str(root), str(int(filled)))
        first = in_a_process("start", str(root), str(time.time()))
        again = in_a_process("start", str(root), str(time.time()))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    of_first = {f"first_{name}": first[name] for name in ("seconds", "cpu_seconds")}
    return made | of_first | again


def main(argv: Sequence[str]) -> None:
    if argv[0] == "--do":
        work, root, value = argv[1:]
        print(
            json.dumps(
                decode(root, value == "1") if work == "decode" else start(root, float(value))
            )
        )
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the sets are made, on a disk with room")
    parser.add_argument("images", type=int, nargs="+")
    parser.add_argument("--filled", action="store_true", help="noise in place of decoding")
    arguments = parser.parse_args(argv)
    print(
        "| images | decoding: s | CPU s | MB | first start: s | CPU s | start: s | CPU s | MB | "
        "fed a second | resident |"
    )
    print("|" + "---:|" * 11)
    for count in arguments.images:
        found = measure(arguments.folder, count, arguments.filled)
        cells = (
            f"{found[name]:,.{digits}f}" if name in found else ""
            for name, digits in COLUMNS.items()
        )
        print(f"| {count:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
