"""How cuDNN chooses its kernels while a run computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.backends import cudnn

AUTOTUNE = False
"""Whether cuDNN times its algorithms for every new shape and keeps the fastest (``cudnn.benchmark``).

Off until a GPU has shown what that gains: the choice, and with it the last bits, can differ from one process
to the next."""


@contextmanager
def chosen_kernels(deterministic: bool) -> Iterator[None]:
    """Choose kernels in one way for whatever is launched meanwhile, and as before afterwards.

    Args:
        deterministic: take only those algorithms of cuDNN that give the same bits each time.
    """
    former = cudnn.benchmark, cudnn.deterministic
    _choose(AUTOTUNE and not deterministic, deterministic)
    try:
        yield
    finally:
        _choose(*former)


def _choose(benchmark: bool, deterministic: bool) -> None:
    cudnn.benchmark, cudnn.deterministic = benchmark, deterministic
