"""Memory of large tensors kept for the next ones, where the C library would hand it back to the kernel each time."""

import ctypes
import platform

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEPT_BYTES = 2**31 - 1  # free at the heap's end, at most; beyond that it goes back
GROWN_BYTES = 2**28  # by which the heap grows at least, in address space: pages count once they are used


def keep_large_blocks() -> bool:
    """Returns whether it is so from now on, in this process: on Linux with glibc; elsewhere nothing changes.

    By default glibc maps every block of 32 MB and more on its own and unmaps it when it is freed, so that the kernel
    zeroes each activation of a network page by page, in every update again.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: KEPT_BYTES, M_TOP_PAD: GROWN_BYTES}
    return all(libc.mallopt(option, value) == 1 for option, value in wanted.items())
