"""How memory is handed out to the processes that train and those that read, and what is said where it ends.

By default glibc gives the memory of every large tensor back to the kernel as soon as the tensor is gone, and
each training step gets it anew, page by page and filled with zeros. Processes that keep it, in pages of 2 MiB
where the kernel has them, use about a tenth less processor time for the same numbers.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def keeping_what_is_read() -> Iterator[None]:
    """Within the ``with`` block Python's collector rests: in a command that reads studies, tells of them and
    ends, it would look through all that was read again and again, for nothing, in up to half of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def shortage_line(error: BaseException) -> str:
    """What to tell a user of an error that says that memory ran out."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return (
        f"memory ran out ({reason}): end other programs, let fewer trainings run at once (--workers), or use "
        "a machine with more"
    )
