"""How the C library of Linux hands out memory to the processes that train.

By default glibc gives the memory of every large tensor back to the kernel as soon as the tensor is gone, and
each training step gets it anew, page by page and filled with zeros. Processes that keep it, in pages of 2 MiB
where the kernel has them, use about a tenth less processor time for the same numbers.
"""

from __future__ import annotations

import os

_TUNABLES = {
    "hugetlb": 1,  # ask the kernel for large pages
    "mmap_threshold": 32 << 20,  # the largest that glibc takes: tensors up to this come from the heap
    "trim_threshold": 16 << 30,  # the heap is not given back
    "top_pad": 128 << 20,  # it grows in large steps
}


def keep_freed_memory() -> None:
    """Let the processes started from now on keep the memory that they free; the user's own setting stays."""
    settings = ":".join(f"glibc.malloc.{name}={value}" for name, value in _TUNABLES.items())
    os.environ.setdefault("GLIBC_TUNABLES", settings)
