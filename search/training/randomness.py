"""The one owner of a run's randomness: a generator state that is put in place only while the run computes.

Everything random in a run (dropout, augmentation, the order of images) draws from its device's default
generator. Several runs in one process keep a state each, so that none depends on the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class RandomStream:
    """The state of a device's generator between a run's turns."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.state: Tensor = torch.Generator(device).manual_seed(seed).get_state()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this stream the device's default generator, and put the former state back at the end."""
        former = _get_state(self.device)
        _set_state(self.state, self.device)
        try:
            yield
        finally:
            self.state = _get_state(self.device)
            _set_state(former, self.device)


def _get_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
