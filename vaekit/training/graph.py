"""The two ways of running a training step: eagerly, or recorded once as a CUDA graph.

A recorded step may have been compiled before.
"""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, ParamSpec, TypeVar

import torch
from accelerate import Accelerator

from vaekit.errors import UserError

ExecutionPath = Literal["eager", "cuda graph"]
Work = Callable[[], None]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

NUM_REHEARSALS = 3  # libraries set themselves up in the first, the allocator settles by the next


def choose_execution_path(
    device: torch.device, num_processes: int, mixed_precision: str
) -> ExecutionPath:
    """By rule, never by a timing, so that a resumed run takes the same.

    A graph is for one process on CUDA, where a step is too short for Python to keep up with.
    Several processes talk to one another in the middle of a step; the loss scale of fp16 is
    looked after on the host.
    """
    if device.type == "cuda" and num_processes == 1 and mixed_precision != "fp16":
        return "cuda graph"
    return "eager"


def require_compilable(accelerator: Accelerator) -> None:
    """Raise `UserError` where the steps of this launch are not recorded, or can't be compiled."""
    precision, number = accelerator.mixed_precision, accelerator.num_processes
    if choose_execution_path(accelerator.device, number, precision) != "cuda graph":
        raise UserError(
            f"--compile: compiles the step that one process records on a GPU in float32 or bf16; "
            f"this run has {number} process(es) on {accelerator.device.type}, mixed precision "
            f"{precision}; leave it out, or go on on a GPU with a run that was begun with it"
        )
    compilers = (os.environ.get("CC"), "gcc", "clang")
    if find_spec("triton") is None or not any(name and shutil.which(name) for name in compilers):
        raise UserError(
            "--compile: needs Triton, which comes with PyTorch for Linux, and a C compiler, gcc or "
            "clang; install them, or leave it out"
        )


def compiled(work: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`work`, to be compiled when it is first called; its shapes never change."""
    # PyTorch compiles one function no more than eight times, and a process may train many runs.
    torch.compiler.reset()
    # What is not compiled as a whole would give way to Python, which is not recorded.
    return torch.compile(work, fullgraph=True, dynamic=False)


def record(work: Work, rehearse: Work) -> Work:
    """`work` as one CUDA graph, to be replayed; recording it does not do it.

    `rehearse` launches the same kernels without lasting effect.
    """
    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(NUM_REHEARSALS):
            rehearse()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    # A thread that fetches images is none of its business.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay
