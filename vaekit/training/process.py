"""Memory that the C library keeps instead of giving it back to the system after every step."""

import ctypes
import sys

# glibc's names for mallopt (malloc.h), and the largest values that it takes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER_TRIM = 2**31 - 1
LARGEST_KEPT = 2**30  # bytes of one tensor


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
