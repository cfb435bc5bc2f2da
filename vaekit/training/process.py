"""What training sets for its whole process: threads, the C library's memory, cuDNN."""

import ctypes
import os
import sys

import torch
from joblib import cpu_count

# glibc's names for mallopt (malloc.h), and the largest values that it takes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER_TRIM = 2**31 - 1
LARGEST_KEPT = 2**30  # bytes of one tensor


def set_up_process(device: torch.device) -> None:
    """Make this process one that trains on `device`, fast and each time the same.

    It is for commands, whose process is theirs; nothing else in this room changes it.
    """
    use_all_cores(device)
    if device.type == "cpu":
        keep_freed_memory()
    torch.backends.cudnn.deterministic = True


def use_all_cores(device: torch.device) -> None:
    """Give a launched process on a CPU its share of the cores."""
    # `accelerate launch` gives every process OMP_NUM_THREADS=1 unless that variable says more,
    # which on a CPU would leave the other cores idle.
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if device.type == "cpu" and launched and os.environ.get("OMP_NUM_THREADS") == "1":
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, cpu_count() // local_processes))


def keep_freed_memory() -> None:
    """Have freed tensors of up to 1 GiB stay with the process, for the next ones to take.

    By default glibc maps every tensor above some megabytes anew and unmaps it when it is freed.
    The gradients of one step are such tensors, and filling their pages with zeros took a fifth
    of a step. glibc before 2.35 refuses so large a threshold, and other C libraries have none:
    they are left as they are.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
            mallopt(M_TRIM_THRESHOLD, NEVER_TRIM)
