"""The two ways of running a training step: eagerly, or recorded once as a CUDA graph."""

from collections.abc import Callable
from typing import Literal

import torch

ExecutionPath = Literal["eager", "cuda graph"]
Work = Callable[[], None]

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
