"""Sets whether glibc's allocator keeps the memory that is freed."""

import ctypes
import os
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  #: options of mallopt, from malloc.h
#: Without these, each operation returns its large blocks to the kernel, and the next one gets them page by page.
#: The main thread allocates the tensors. Other threads still map blocks over 64 MiB, which exceed their heaps.
KEEP = {M_TRIM_THRESHOLD: -1, M_MMAP_MAX: 0}
#: Highest thresholds that glibc chooses by itself. It no longer adapts them after a call of mallopt.
DEFAULT = {M_TRIM_THRESHOLD: 64 * 2**20, M_MMAP_THRESHOLD: 32 * 2**20, M_MMAP_MAX: 2**16}
applied: dict[int, int] = {}  #: what this process has set


def configure_allocator(mode: str) -> None:
    """Let glibc keep freed memory for the next operation (`keep`), or give it back (`default`).

    Another C library or allocator is left alone, and so is glibc's if the user has set it in the environment.
    """
    values = KEEP if mode == "keep" else applied and DEFAULT
    with suppress(OSError, AttributeError):  # only glibc has this file and mallopt
        libc = ctypes.CDLL("libc.so.6")
        if address_of_malloc(libc) == address_of_malloc(ctypes.CDLL(None)) and not is_set_by_user():
            applied.update((option, value) for option, value in values.items() if libc.mallopt(option, value))


def address_of_malloc(library: ctypes.CDLL) -> int | None:
    return ctypes.cast(library.malloc, ctypes.c_void_p).value


def is_set_by_user() -> bool:
    set_by_variable = any(name.startswith("MALLOC_") for name in os.environ)
    return set_by_variable or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
