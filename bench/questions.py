"""Questions to a GPU that no test asks: `python -m bench.questions NAME...`.

Each answer is written when it is known (bench/answers.py). Without a GPU they are asked of the CPU,
tiny. Nothing here needs jsonargparse, pythae or cuML.
"""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.state import AcceleratorState
from sklearn.svm import SVC
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench.answers import answer
from bench.defaults import set_for_training
from bench.hardware import copy_rate, matrix_product_rate, step_limit
from bench.made_up import clouds, noisy_images
from bench.plain_loops import Precision, synchronise
from bench.trainings import IMAGE_SHAPE, epochs_of, models, start_training
from bench.variants import VARIANTS
from vaekit.config import DataConfig, MixedPrecision, ModelConfig, SvmConfig, TrainConfig
from vaekit.errors import UserError
from vaekit.images.image_set import ImageSet
from vaekit.images.pixels import as_floats
from vaekit.models.vae import VAE
from vaekit.runs.run import Run
from vaekit.stages.latents import encode_into, extract_latents
from vaekit.stages.svm import fit_svm
from vaekit.svm.backend import choose_backend
from vaekit.svm.fit import fit_table
from vaekit.svm.table import predict
from vaekit.train import train
from vaekit.training.environment import installed_versions
from vaekit.training.noise import epoch_order
from vaekit.training.precision import without_tf32
from vaekit.training.ranks import start_ranks
from vaekit.training.state import Training

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
MODELS = models(tiny=not ON_GPU)
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16", "fp16") if ON_GPU else ("float32", "bf16")

# Steps of an epoch that is timed, by batch size.
NUM_STEPS = {128: 100, 64: 100, 512: 40} if ON_GPU else {8: 3}
BATCH_SIZE = next(iter(NUM_STEPS))
ROUNDS = 2
REPLAYS = 50

PROFILED_STEPS = 10
SHOWN_KERNELS = 12

MAX_IMAGES = 60_000 if ON_GPU else 200
COMPARED_IMAGES = min(1000, MAX_IMAGES)
NUM_POINTS = 2000 if ON_GPU else 200
EPOCHS = 20 if ON_GPU else 1
MNIST = (
    DataConfig(name="mnist", root=os.environ.get("DATA", "data"))
    if ON_GPU
    else DataConfig(name="digits", limit=100)
)

NEEDED_BY_A_PART = (
    "jsonargparse",
    "docstring_parser",
    "torchvision",
    "PIL",
    "pythae",
    "cupy",
    "cuml",
)


def machine() -> None:
    """What answers."""
    answer(
        "versions",
        **installed_versions(),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        kernel=platform.release(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        missing=[name for name in NEEDED_BY_A_PART if find_spec(name) is None],
    )
    if ON_GPU:
        properties = torch.cuda.get_device_properties(DEVICE)
        answer("device", name=properties.name, bytes=properties.total_memory)
        subprocess.run(["nvidia-smi"], check=False)
    answer("rate of a copy, read and written", gigabytes_per_second=copy_rate(DEVICE) / 1e9)
    vae = VAE().to(DEVICE)
    for precision in PRECISIONS:
        rate = matrix_product_rate(vae, BATCH_SIZE, precision)
        answer("rate of the largest layer's products", precision=precision, teraflops=rate / 1e12)


def steps() -> None:
    """How long a step takes, by precision and batch."""
    for batch_size, num_steps in NUM_STEPS.items():
        for precision in PRECISIONS:
            for name, model in MODELS.items():
                with going_on("step"):
                    training = start_training(model, batch_size, num_steps, precision=precision)
                    answer(
                        "step",
                        architecture=name,
                        precision=precision,
                        batch=batch_size,
                        **step_times(training)._asdict(),
                        limit_ms=1e3 * step_limit(training.vae, batch_size, precision),
                    )


def fetched() -> None:
    """The same at the first batch size with images that are fetched ahead."""
    for name, model in MODELS.items():
        training = start_training(
            model, BATCH_SIZE, NUM_STEPS[BATCH_SIZE], precision="bf16", resident_limit=0
        )
        answer("step, images fetched", architecture=name, **step_times(training)._asdict())


def compiled_steps() -> None:
    """The same compiled, and how long that takes.

    Of a CPU, which --compile is not for, it would ask minutes.
    """
    for name, model in MODELS.items() if ON_GPU else ():
        with going_on("step, compiled"):
            training = start_training(
                model, BATCH_SIZE, NUM_STEPS[BATCH_SIZE], precision="bf16", compile=True
            )
            seconds = seconds_of(epochs_of(training))
            times = step_times(training)._asdict()
            answer("step, compiled", architecture=name, seconds_of_first_epoch=seconds, **times)


def thumbnails() -> None:
    """A step of `conv` where outputs are means of pixels, with a thumbnail of them and without.

    Compiled, too, where that is not minutes.
    """
    tiny = {} if ON_GPU else {"width": 4}
    for is_compiled, has_thumbnail in product((False, True) if ON_GPU else (False,), (False, True)):
        with going_on("step, means of pixels"):
            model = ModelConfig("conv", "gaussian", thumbnail=has_thumbnail, **tiny)
            training = start_training(
                model, BATCH_SIZE, NUM_STEPS[BATCH_SIZE], precision="bf16", compile=is_compiled
            )
            answer(
                "step, means of pixels",
                thumbnail=has_thumbnail,
                compiled=is_compiled,
                **step_times(training)._asdict(),
            )


class StepTimes(NamedTuple):
    path: str
    ms: float  # the best epoch's, by the step
    host_ms: float  # that Python needs for a step, whatever the device does meanwhile
    replay_ms: float | None  # of the recorded graph alone, on the device


def step_times(training: Training) -> StepTimes:
    epoch, num_steps = epochs_of(training), training.steps_per_epoch
    epoch()  # records the step
    best = min(seconds_of(epoch) for _ in range(ROUNDS))
    order = epoch_order(0, 1, len(training.images.train.pixels))
    stepper = training.stepper
    stepper.start_epoch(order, 0, training.losses[:0])
    host = []
    for step in range(min(num_steps, REPLAYS)):
        start = time.perf_counter()
        stepper.advance(step)
        host.append(time.perf_counter() - start)
    synchronise(DEVICE)
    is_recorded = stepper.path == "cuda graph"
    replay = replay_ms(training) if is_recorded else None
    return StepTimes(stepper.path, 1e3 * best / num_steps, 1e3 * median(host), replay)


def replay_ms(training: Training) -> float:
    """Of the same batch again and again: beyond the last of an epoch there is none."""
    stepper = training.stepper
    times = []
    for _ in range(REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stepper._batch.zero_()
        begin.record()
        stepper._run()  # type: ignore[misc]
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return median(times)


def kernels() -> None:
    """What a step has the device do; the whole tables are in kernels.txt."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if ON_GPU else [])]
    for name, model in MODELS.items():
        for precision in PRECISIONS[:2]:
            training = start_training(model, BATCH_SIZE, 3 * PROFILED_STEPS, precision=precision)
            order = epoch_order(0, 1, len(training.images.train.pixels))
            training.stepper.passes.train()
            training.stepper.start_epoch(order, 0, training.losses)
            for step in range(PROFILED_STEPS):
                training.stepper.advance(step)
            synchronise(DEVICE)
            with profile(activities=kinds, acc_events=True) as profiler:
                for step in range(PROFILED_STEPS):
                    training.stepper.advance(step)
                synchronise(DEVICE)
            write_kernels(f"{name}, {precision}, batch {BATCH_SIZE}", profiler.key_averages())


def write_kernels(title: str, averages: Any) -> None:
    by_time = "self_device_time_total" if ON_GPU else "self_cpu_time_total"
    table = averages.table(sort_by=by_time, row_limit=60, max_name_column_width=90)
    folder = Path(os.environ.get("VAEKIT_OUT", "."))
    with (folder / "kernels.txt").open("a", encoding="utf-8") as file:
        file.write(f"{title}, {PROFILED_STEPS} steps\n{table}\n\n")
    # An operation that launches a kernel has the kernel's time, too.
    counted = DeviceType.CUDA if ON_GPU else DeviceType.CPU
    spent = [each for each in averages if each.device_type == counted]
    spent.sort(key=lambda each: -getattr(each, by_time))
    answer(
        "kernels of a step",
        of=title,
        microseconds=sum(getattr(each, by_time) for each in spent) / PROFILED_STEPS,
        longest={
            each.key[:80]: [
                round(getattr(each, by_time) / PROFILED_STEPS, 2),
                each.count / PROFILED_STEPS,
            ]
            for each in spent[:SHOWN_KERNELS]
        },
    )


def variants() -> None:
    """A step with another setting of PyTorch, against the step as it is, in turns."""
    for name, model in MODELS.items():
        for precision in reversed(PRECISIONS[:2]):
            epochs = {}
            for variant, within in VARIANTS.items():
                with going_on(variant):
                    training = start_training(
                        model, BATCH_SIZE, NUM_STEPS[BATCH_SIZE], precision=precision
                    )
                    epochs[variant] = epochs_of(training)
                    with within():
                        epochs[variant]()  # records the step
            times: dict[str, list[float]] = {variant: [] for variant in epochs}
            for _ in range(ROUNDS):
                for variant, epoch in epochs.items():
                    with VARIANTS[variant]():
                        times[variant].append(seconds_of(epoch))
            ms = 1e3 / NUM_STEPS[BATCH_SIZE]
            answer(
                "step with one thing changed",
                architecture=name,
                precision=precision,
                ms={each: ms * min(seconds) for each, seconds in times.items()},
            )


def tf32() -> None:
    """How far latents are off those of a CPU, with TF32 and without."""
    pixels = noisy_images(MAX_IMAGES)
    for name, model in MODELS.items():
        torch.manual_seed(0)
        vae = VAE(model, IMAGE_SHAPE).eval()
        images = as_floats(torch.from_numpy(pixels[:COMPARED_IMAGES]))
        with torch.no_grad():
            expected = torch.cat(vae.encode(images), dim=1)
            vae = vae.to(DEVICE)
            allowed = torch.cat(vae.encode(images.to(DEVICE)), dim=1).cpu()
            with without_tf32():
                forbidden = torch.cat(vae.encode(images.to(DEVICE)), dim=1).cpu()
        with tempfile.TemporaryDirectory() as folder:
            path, image_set = Path(folder) / "latents.npy", ImageSet(pixels, None)
            work = lambda: encode_into(path, vae, image_set, start_ranks())  # noqa: E731, B023
            work()
            seconds = seconds_of(work)
        answer(
            "latents",
            architecture=name,
            off_with_tf32=float((allowed - expected).abs().max()),
            off_without=float((forbidden - expected).abs().max()),
            images=len(pixels),
            seconds_without=seconds,
        )


def handed_over() -> None:
    """Latents on the device reach cuML without a copy by way of the host; scikit-learn plays it."""
    if find_spec("cupy") is None or not ON_GPU:
        answer("handed over", why="needs a GPU and CuPy")
        return
    import cupy

    rows = torch.rand(100, 4, device=DEVICE)
    is_same = cupy.asarray(rows, dtype=np.float32).data.ptr == rows.data_ptr()
    points, labels = clouds(NUM_POINTS)
    with cuml_played_by_sklearn(cupy):
        on_device = fit_table(
            points, labels, SvmConfig(), "cuml", on_device=torch.from_numpy(points).to(DEVICE)
        )
    on_cpu = fit_table(points, labels, SvmConfig())
    equal = predict(on_device, points).labels == predict(on_cpu, points).labels
    answer("handed over", without_a_copy=is_same, labels_equal=float(equal.mean()))
    answer("cuML itself", choice=choose_backend("auto")._asdict())


@contextmanager
def cuml_played_by_sklearn(cupy: Any) -> Iterator[None]:
    class DeviceSVC:
        def __init__(self, *, output_type: str, **settings: Any) -> None:
            self._svc = SVC(**settings)

        def fit(self, X: Any, y: Any) -> None:
            assert isinstance(X, cupy.ndarray)
            self._svc.fit(cupy.asnumpy(X), y)
            self.support_, self.dual_coef_ = self._svc.support_, self._svc.dual_coef_
            self.intercept_ = self._svc.intercept_

    before = {name: sys.modules.get(name) for name in ("cuml", "cuml.svm")}
    for name in before:
        sys.modules[name] = ModuleType(name)
    sys.modules["cuml.svm"].SVC = DeviceSVC  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def mnist() -> None:
    """A run as anybody would train it, its latents and its SVM."""
    train_and_measure("reference", seed=0)


def in_float32() -> None:
    """The same without bf16: what that costs."""
    train_and_measure("reference", seed=0, mixed_precision="no")


def seeds() -> None:
    """The same of two other seeds."""
    for seed in (1, 2):
        train_and_measure("reference", seed)


def architectures() -> None:
    """The same of the other architectures."""
    for name in MODELS:
        if name != "reference":
            train_and_measure(name, seed=0)


def train_and_measure(
    architecture: str, seed: int, mixed_precision: MixedPrecision = "auto"
) -> None:
    config = TrainConfig(
        data=MNIST,
        model=MODELS[architecture],
        epochs=EPOCHS,
        seed=seed,
        batch_size=128 if ON_GPU else 10,
        mixed_precision=mixed_precision,
    )
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(config, run=str(Path(folder) / "run"))
        AcceleratorState._reset_state(reset_partial_state=True)
        seconds = seconds_of(lambda: train(config))
        run = Run(Path(str(config.run)))
        rows = [json.loads(line) for line in run.folder.metrics.read_text().splitlines()]
        environment = run.environment[-1]
        answer(
            "run",
            architecture=architecture,
            seed=seed,
            images=MNIST.name,
            precision=environment["mixed_precision"],
            path=environment["execution_path"],
            seconds=seconds,
            seconds_of_steps=sum(row["seconds"] for row in rows[1:]),
            epochs=[[row["epoch"], row["train_loss"], row["test_loss"]] for row in rows],
            final_train_loss=rows[-1].get("final_train_loss"),
        )
        answer("latents of the run", seconds=seconds_of(lambda: extract_latents(run)))
        seconds = seconds_of(lambda: fit_svm(Run(run.folder.path), SvmConfig()))
        metrics = Run(run.folder.path).svm_metrics
        kept = {name: metrics[name] for name in ("accuracy", "f1", "backend", "seconds")}
        answer(
            "SVM of the run", architecture=architecture, seed=seed, seconds_in_all=seconds, **kept
        )


@contextmanager
def going_on(question: str) -> Iterator[None]:
    """One answer that can't be had shall not keep the others from being asked."""
    try:
        yield
    except (RuntimeError, UserError):  # CUDA's errors are RuntimeErrors
        answer(question, why=traceback.format_exc()[-1500:])


def seconds_of(work: Any) -> float:
    start = time.perf_counter()
    work()
    synchronise(DEVICE)
    return time.perf_counter() - start


QUESTIONS = {
    each.__name__: each
    for each in (
        machine,
        steps,
        fetched,
        compiled_steps,
        thumbnails,
        tf32,
        handed_over,
        mnist,
        kernels,
        variants,
        in_float32,
        architectures,
        seeds,
    )
}
AS_FOR_TRAINING = {"steps", "fetched", "compiled_steps", "thumbnails", "kernels", "variants"}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        if name in AS_FOR_TRAINING:
            with set_for_training(DEVICE):
                QUESTIONS[name]()
        else:
            QUESTIONS[name]()
