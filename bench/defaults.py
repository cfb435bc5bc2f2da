"""Settings of the whole process that `vaekit train` makes for speed or exactness, and its defaults.

vaekit's side of a contest has what the command has; a peer in a process of its own would not.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn

from vaekit.training.process import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, set_up_process

# glibc maps blocks from a threshold on anew, and gives memory back above twice that. Until it is
# told a threshold, it takes the largest mapped block that was freed, up to this (malloc.c:
# DEFAULT_MMAP_THRESHOLD_MAX).
LARGEST_MMAP_THRESHOLD = 32 * 2**20


class _Mallinfo2(ctypes.Structure):
    """glibc's struct mallinfo2 (malloc.h)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


@contextmanager
def set_for_training(device: torch.device) -> Iterator[None]:
    """This process as `vaekit train` sets its own; afterwards as it comes."""
    deterministic = cudnn.deterministic
    set_up_process(device)
    try:
        yield
    finally:
        cudnn.deterministic = deterministic
        _set_thresholds(LARGEST_MMAP_THRESHOLD)
        if (c_library := _glibc()) is not None:
            c_library.malloc_trim(0)


@contextmanager
def library_defaults(device: torch.device, largest_freed: int) -> Iterator[None]:
    """For a peer, cuDNN and the C library's allocator as they come; afterwards set for training.

    `largest_freed` are the bytes of the largest tensor of up to 32 MiB that the work frees again
    and again.
    """
    assert largest_freed <= LARGEST_MMAP_THRESHOLD
    cudnn.deterministic = False
    _set_thresholds(largest_freed)
    with _kept_memory_withheld(largest_freed):
        try:
            yield
        finally:
            set_up_process(device)


@contextmanager
def _kept_memory_withheld(threshold: int) -> Iterator[None]:
    """Blocks from `threshold` on find no place in memory that the process has kept.

    glibc asks for its threshold only where no freed memory is large enough. Without this a peer's
    gradients would lie where vaekit's did, for which its own process has no room.
    """
    c_library = _glibc()
    if c_library is None:
        yield
        return
    withheld = []
    num_mapped = c_library.mallinfo2().hblks
    while c_library.mallinfo2().hblks == num_mapped:
        withheld.append(c_library.malloc(threshold))
    c_library.free(withheld.pop())  # the one that was mapped
    try:
        yield
    finally:
        for block in withheld:
            c_library.free(block)


def _set_thresholds(threshold: int) -> None:
    if (c_library := _glibc()) is not None:
        c_library.mallopt(M_MMAP_THRESHOLD, threshold)
        c_library.mallopt(M_TRIM_THRESHOLD, 2 * threshold)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc 2.33 or newer."""
    if sys.platform != "linux":
        return None
    c_library = ctypes.CDLL(None)
    if not hasattr(c_library, "mallinfo2"):
        return None
    c_library.mallinfo2.restype = _Mallinfo2
    c_library.malloc.argtypes, c_library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    c_library.free.argtypes = [ctypes.c_void_p]
    return c_library
