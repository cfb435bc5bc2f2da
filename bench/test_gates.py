"""What must hold of a training step whatever the machine's speed. Nothing is timed here."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from bench.plain_loops import Precision
from bench.trainings import PRECISIONS, SMALL, start_training
from vaekit.training.noise import epoch_order
from vaekit.training.step import Stepper

NUM_STEPS = 8
SETTLED = 3  # the first steps record the graph, or make Adam's moments

# What would wait for a GPU to tell the host a number.
READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__")

# What the host has the device do, as CUDA's own profiler names it.
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
GRAPH_LAUNCH = "cudaGraphLaunch"

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
precisions = pytest.mark.parametrize("precision", PRECISIONS)


@pytest.fixture(params=[None, 0], ids=["resident", "fetched"])
def stepper(request: pytest.FixtureRequest, as_for_training: None, precision: Precision) -> Stepper:
    """Somewhere in an epoch, with its first steps behind it."""
    training = start_training(
        SMALL, 4, NUM_STEPS, precision=precision, resident_limit=request.param
    )
    training.stepper.passes.train()
    order = epoch_order(0, 1, 4 * NUM_STEPS)
    training.stepper.start_epoch(order, 0, np.zeros((0, 2)))
    for step in range(SETTLED):
        training.stepper.advance(step)
    return training.stepper


class Calls(TorchFunctionMode):
    """Takes down the names of the tensor methods and torch functions that Python calls."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


@precisions
def test_every_step_is_the_same_operations(stepper: Stepper) -> None:
    counts = [_operations(stepper, step) for step in range(SETTLED, NUM_STEPS)]
    assert all(each == counts[0] for each in counts)


@precisions
def test_no_step_reads_a_number(stepper: Stepper) -> None:
    with Calls() as calls:
        stepper.advance(SETTLED)
    assert "normal_" in calls.names
    assert not calls.names & set(READS)


@needs_cuda
@precisions
def test_no_step_waits_for_the_device(stepper: Stepper) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a feature that is a prototype
            torch.cuda.set_sync_debug_mode("error")
        for step in range(SETTLED, NUM_STEPS):
            stepper.advance(step)
            stepper.losses.latest(step)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
@precisions
def test_every_step_launches_the_same_and_the_graph_once(stepper: Stepper) -> None:
    # The profiler sets itself up while it watches for the first time, and may miss something.
    _, *counts = [_launches(stepper, step) for step in range(SETTLED, NUM_STEPS)]
    assert all(each == counts[0] for each in counts)
    assert counts[0][GRAPH_LAUNCH] == (1 if stepper.path == "cuda graph" else 0)


@needs_cuda
@precisions
def test_every_step_allocates_the_same_and_asks_the_device_for_nothing(stepper: Stepper) -> None:
    allocations = []
    for step in range(SETTLED, NUM_STEPS):
        before = torch.cuda.memory_stats()
        stepper.advance(step)
        after = torch.cuda.memory_stats()
        allocations.append(_increase(before, after, "allocation.all.allocated"))
        assert _increase(before, after, "segment.all.allocated") == 0
    assert len(set(allocations)) == 1


# Without acc_events, torch 2.11 warns that the events of an earlier cycle are dropped.
def _operations(stepper: Stepper, step: int) -> Counter[str]:
    """How often PyTorch was asked for each of its operations."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        stepper.advance(step)
    return Counter(event.name for event in profiler.events() if event.name.startswith("aten::"))


def _launches(stepper: Stepper, step: int) -> Counter[str]:
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as profiler:
        stepper.advance(step)
        torch.cuda.synchronize()
    names = (event.name for event in profiler.events())
    return Counter(name for name in names if name in (*LAUNCHES, GRAPH_LAUNCH))


def _increase(before: dict[str, int], after: dict[str, int], statistic: str) -> int:
    return after[statistic] - before[statistic]
