"""How a folder of made-up 28x28 images is fed to training: `python bench/scale.py FOLDER 10000`.

For each number of images it makes that many names in FOLDER, hard links of some PNG files, and
starts training on them in a process of its own, which decodes them, and in another one, which finds
them decoded: seconds from the launch to the end of the first step, the most memory up to there, and
how many images a second the feed gives. With --noise files are not opened: noise stands for what
is in them, and all else is done. With --filled there are no files, whose names are then not looked
at, and shards of noise. With --names there are empty files, whose names are looked at: CPU
microseconds and bytes of memory a file. With --ranks 2 they are decoded by one rank and by two, in
turns, with a core for each. A set is removed once measured.
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
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
NUM_TEST = 10_000  # images at most, a tenth of fewer
IN_A_FOLDER = 5_000  # files
LINKS = 20_000  # to one file at most, of the 65,000 that ext4 allows
NUM_CLASSES = 10
BATCH_SIZE = 128
NUM_STEPS = 30
DECODED, NOISE, FILLED = "decoded", "noise", "filled"  # what the images of a set are
UNSEEN = "files that are not there"
FED_BATCHES = 2_000
TURNS = 3  # of one rank and of several
DECODING = {"decoding_seconds": ("decoding: s", 0), "decoding_cpu_seconds": ("CPU s", 0)}
COLUMNS = {  # what is found: its title, and decimals
    **DECODING,
    "first_seconds": ("first start: s", 0),
    "first_cpu_seconds": ("CPU s", 0),
    "first_anonymous_mb": ("MB", 0),
    "names_cpu_seconds": ("names: CPU s", 2),
    "seconds": ("later start: s", 0),
    "cpu_seconds": ("CPU s", 0),
    "anonymous_mb": ("MB", 0),
    "fetched_images_per_second": ("fed a second", 0),
    "resident_images_per_second": ("resident", 0),
}


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


def decode_in_ranks(root: str) -> dict[str, Any]:
    """Have a set decoded by the ranks of a launch, a core each; what this one spends."""
    from vaekit.config import DataConfig
    from vaekit.images.sets import load_images
    from vaekit.training.ranks import ImageRanks, start_ranks

    launched = start_ranks()
    ranks = ImageRanks(launched)
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[ranks.index]})
    began, worked = time.perf_counter(), time.process_time()
    load_images(DataConfig(name="folder", root=root), 0, ranks=ranks)
    found = {
        "rank": ranks.index,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - worked,
    }
    launched.destroy_process_group()
    return found


def fill(root: str, count: int) -> dict[str, Any]:
    """A cache of noise, as decoding leaves it, of files that are not there."""
    from vaekit.config import DataConfig
    from vaekit.images import cache, parts, settled, shards
    from vaekit.images.collect import Collected
    from vaekit.images.copies import digests
    from vaekit.images.ranks import ALONE
    from vaekit.images.reading import Reading

    given = DataConfig(name="folder", root=root, reading="content")
    data = replace(given, background="black", value_range="0,255")
    place, generator = Path(root) / cache.CACHE_FOLDER, np.random.default_rng(0)
    task = shards.Task(shards.SHARD, {}, data.background, data.value_range, channels=1)
    folder, settings = shards.folder_of(place, task, data), shards.settings_of(task, data)

    def noise(rows: Any, stem: str) -> tuple[Any, dict[str, Any]]:
        pixels = generator.integers(0, 256, (len(rows), 1, *data.size), dtype=np.uint8)
        np.save(f"{stem}{shards.PIXELS}", pixels)
        made = parts.extended(rows, [("fault", "<i4"), ("fates", "<i4"), ("digest", "<u8", (2,))])
        made["digest"] = digests(pixels)
        return made, {"fault": [], "fates": [[]]}

    most = shards.files_in_a_part(task, data)
    for start in range(0, count, most):
        numbers = range(start, min(start + most, count))
        rows = np.zeros(len(numbers), parts.with_names(16))
        rows["name"] = [f"{number % NUM_CLASSES}/{number}.png" for number in numbers]
        planned = parts.plan(folder, shards.SHARD, np.arange(len(rows)), most, rows.__getitem__)
        parts.do_parts(folder, planned, settings, noise, ALONE, lambda _: None)
    made = parts.read_parts(folder, shards.SHARD, settings)
    order = generator.permutation(count)
    pixels = shards.mapped_images(made, order)
    num_test = min(NUM_TEST, count // 10)
    names = tuple(map(str, range(NUM_CLASSES)))
    sides = (count - num_test, 0, num_test)
    reading = Reading(num_found=count)
    pages = np.zeros(count, np.int32)
    labels = order % NUM_CLASSES
    images = Collected(names, pixels, labels, order, pages, sides, False, data, reading)
    found = settled.Settled(data, is_split=False)
    cache._write_set(place, cache._set_key(UNSEEN, found, 0), images, made)
    path = cache._settled_path(place, UNSEEN, given)
    settled.write_settled(path, found, parts.FORMAT_VERSION)
    return {}


def look(root: Path, count: int) -> str:
    """CPU microseconds a file that a look at all names takes, and bytes: at most, and held."""
    from vaekit.images.walk import walk

    for number in range(count):
        folder = root / str(number % NUM_CLASSES) / f"{number // NUM_CLASSES // IN_A_FOLDER:04d}"
        if number // NUM_CLASSES % IN_A_FOLDER == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:08d}.png").touch()
    best = float("inf")
    for _ in range(3):
        worked = time.process_time()
        walk(root, by_suffix=False).signature()
        best = min(best, time.process_time() - worked)
    tracemalloc.start()
    found = walk(root, by_suffix=False)
    found.signature()
    held, most = tracemalloc.get_traced_memory()
    return (
        f"| {len(found):,} | {1e6 * best / count:.1f} | {most / count:.0f} | {held / count:.0f} |"
    )


def open_no_files() -> None:
    """Have all files be grey and of noise in this process, none of which is opened."""
    from vaekit.images import shards
    from vaekit.images.coded import NONE, Coded
    from vaekit.images.decode import Decoded
    from vaekit.images.survey import PAGE, Page, Survey

    def survey(files: Sequence[Path], *_: Any, **__: Any) -> Survey:
        count = len(files)
        pages = np.full(count, np.array(Page(has_colour=False, has_alpha=False), PAGE))
        whole = Coded(np.full(count, NONE, np.int32), [])
        return Survey(np.ones(count, np.int32), whole, pages, np.zeros(count, bool))

    def decode_files(sources: Sequence[Any], pixels: NDArray[np.uint8], *_: Any) -> Decoded:
        generator = np.random.default_rng()
        for image in pixels:
            image[...] = generator.integers(0, 256, image.shape, np.uint8)
        as_it_is = np.zeros(len(sources), np.int32)
        return Decoded(Coded(as_it_is + NONE, []), Coded(as_it_is, [()]))

    shards.survey, shards.decode_files = survey, decode_files


class Enough(Exception):  # noqa: N818 - no fault
    """The steps that are measured are done."""


def start(root: str, launched: float, what: str) -> dict[str, Any]:
    """Train for some steps, and see what the feed gives by itself."""
    import torch

    from vaekit import train as module
    from vaekit.config import DataConfig, TrainConfig
    from vaekit.images.walk import Walk, walk
    from vaekit.training.feeds import FetchingFeed, ResidentFeed
    from vaekit.training.step import Stepper

    if what == FILLED:
        Walk.signature = lambda _: UNSEEN  # type: ignore[method-assign]
    elif what == NOISE:
        open_no_files()
    found: dict[str, Any] = {}
    read, advance = module.load_images, Stepper.advance

    def noted_reading(*arguments: Any, **named: Any) -> Any:
        began, worked = time.perf_counter(), time.process_time()
        images = read(*arguments, **named)
        found.update(
            decoding_seconds=time.perf_counter() - began,
            decoding_cpu_seconds=time.process_time() - worked,
        )
        return images

    def noted(stepper: Stepper, step: int) -> None:
        advance(stepper, step)
        if "seconds" not in found:
            found.update(seconds=time.time() - launched, cpu_seconds=time.process_time())
        if step + 1 == NUM_STEPS:
            raise Enough

    module.load_images = noted_reading  # type: ignore[assignment]
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
    if what != FILLED:
        worked = time.process_time()
        walk(Path(root), by_suffix=False).signature()
        found["names_cpu_seconds"] = time.process_time() - worked

    images = read(config.data, config.seed).train.pixels
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


def compare_ranks(folder: Path, count: int, number: int) -> None:
    """Seconds and CPU seconds of each rank, of one and of `number` in turns."""
    root = folder / f"ranks-{count}"
    try:
        make(root, count)
        for turn, num_ranks in enumerate((1, number) * TURNS):
            result = subprocess.run(
                [
                    *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                    *("--nproc_per_node", str(num_ranks), __file__, "--do", "ranks", str(root)),
                ],
                env=os.environ
                | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            # Two may write into one line.
            found = [json.loads(each) for each in re.findall(r"{.*?}", result.stdout)]
            shutil.rmtree(root / ".vaekit-cache")
            cells = [
                f"{each['seconds']:.1f} s, {each['cpu_seconds']:.1f} CPU s"
                for each in sorted(found, key=lambda each: int(each["rank"]))
            ]
            print(f"| {count:,} | {turn // 2 + 1} | {' | '.join(cells)} |", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def measure(folder: Path, count: int, what: str) -> dict[str, Any]:
    root = folder / f"made-up-{count}"
    try:
        if what == FILLED:
            root.mkdir(parents=True)
            in_a_process("fill", str(root), str(count))
        else:
            make(root, count)
        first, again = (in_a_process("start", str(root), str(time.time()), what) for _ in range(2))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    of_first = {f"first_{name}": each for name, each in first.items()}
    of_decoding = {name: first[name] for name in DECODING if what == DECODED}
    of_later = {name: each for name, each in again.items() if name not in DECODING}
    return of_first | of_later | of_decoding


def main(argv: Sequence[str]) -> None:
    if argv[0] == "--do":
        _, work, root, *rest = argv
        if work == "ranks":
            found = decode_in_ranks(root)
        elif work == "fill":
            found = fill(root, int(rest[0]))
        else:
            found = start(root, float(rest[0]), rest[1])
        print(json.dumps(found))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the sets are made, on a disk with room")
    parser.add_argument("images", type=int, nargs="+")
    parser.add_argument("--noise", action="store_true", help="files that are not opened")
    parser.add_argument("--filled", action="store_true", help="no files, and shards of noise")
    parser.add_argument("--names", action="store_true", help="no images, only their names")
    parser.add_argument("--ranks", type=int, help="have them decoded by one and by so many")
    arguments = parser.parse_args(argv)
    if arguments.ranks is not None:
        for count in arguments.images:
            compare_ranks(arguments.folder, count, arguments.ranks)
        return
    if arguments.names:
        print("| files | CPU us a file | bytes a file, at most | held |\n|---:|---:|---:|---:|")
        for count in arguments.images:
            root = arguments.folder / f"names-{count}"
            try:
                print(look(root, count), flush=True)
            finally:
                shutil.rmtree(root, ignore_errors=True)
        return
    print(f"| images | {' | '.join(title for title, _ in COLUMNS.values())} |")
    print("|" + "---:|" * (1 + len(COLUMNS)))
    what = FILLED if arguments.filled else NOISE if arguments.noise else DECODED
    for count in arguments.images:
        found = measure(arguments.folder, count, what)
        cells = (
            f"{found[name]:,.{digits}f}" if name in found else ""
            for name, (_, digits) in COLUMNS.items()
        )
        print(f"| {count:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
