"""Whether an error says that memory ran out: torch says it in more words than one type of error has."""

from __future__ import annotations

import torch

CERTAIN = (
    "out of memory",  # the driver's own words, of launches and of graphs that are made ready
    "not enough memory",
    "can't allocate memory",  # torch's allocator of the host
    "ALLOC_FAILED",  # cuBLAS's status, and cuDNN's until its version 9
    "ALLOCATION_FAILED",  # cuDNN's
)
POSSIBLE = ("unable to find an engine",)
"""cuDNN found no algorithm: where memory is scarce, since none had room for its workspace."""


def is_shortage(error: BaseException) -> bool:
    """Whether memory, of the device or of the host, ran out for certain."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _says(error, CERTAIN)


def may_be_shortage(error: BaseException) -> bool:
    """Whether memory ran out, or an algorithm was missing, which with more memory there might have been."""
    return is_shortage(error) or _says(error, POSSIBLE)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word.lower() in text for word in words)
