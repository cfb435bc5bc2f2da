"""Settings of the whole process that vaekit changes for speed or exactness, and how they come.

A peer in a process of its own would not have them.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from torch.backends import cudnn

from vaekit.allocator import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory

# glibc raises its thresholds by itself as larger blocks are freed, until it is told one. These
# are the largest that it comes to (malloc.c: DEFAULT_MMAP_THRESHOLD_MAX, and twice that).
DEFAULT_MMAP_THRESHOLD = 32 * 2**20
DEFAULT_TRIM_THRESHOLD = 2 * DEFAULT_MMAP_THRESHOLD


@contextmanager
def library_defaults() -> Iterator[None]:
    """cuDNN and the C library's allocator as they come; afterwards as for training on a CPU."""
    deterministic = cudnn.deterministic
    cudnn.deterministic = False
    forget_kept_memory()
    yield
    cudnn.deterministic = deterministic
    keep_freed_memory()


def forget_kept_memory() -> None:
    """Undo `keep_freed_memory`, and give the system back what was kept."""
    if sys.platform != "linux":
        return
    c_library = ctypes.CDLL(None)
    if getattr(c_library, "mallopt", None) is not None:
        c_library.mallopt(M_MMAP_THRESHOLD, DEFAULT_MMAP_THRESHOLD)
        c_library.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD)
        c_library.malloc_trim(0)
