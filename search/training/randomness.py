"""The one owner of a run's randomness: a generator that takes its device's place only while the run computes.

Everything random in a run (dropout, augmentation, the order of images) draws from its device's default
generator. Several runs in one process keep a stream each, so that none depends on the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class RandomStream:
    """A generator of its own for a run on ``device``."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self._generator = torch.Generator(device).manual_seed(seed)

    @property
    def state(self) -> Tensor:
        """Where the stream is; on the host, also for a GPU."""
        return self._generator.get_state()

    @state.setter
    def state(self, state: Tensor) -> None:
        self._generator.set_state(state)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this stream the device's default generator, and put the former one back at the end."""
        if self.device.type == "cuda":
            with self._in_place_of(_default_of(self.device)):
                yield
            return
        former = torch.get_rng_state()
        torch.set_rng_state(self.state)
        try:
            yield
        finally:
            self.state = torch.get_rng_state()
            torch.set_rng_state(former)

    @contextmanager
    def _in_place_of(self, default: torch.Generator) -> Iterator[None]:
        # The two then share one state, which a CUDA graph captured meanwhile remembers as its own: at each
        # replay it draws on from where this stream is, and moves it on, whatever other runs draw.
        former = default.graphsafe_get_state()
        default.graphsafe_set_state(self._generator)
        try:
            yield
        finally:
            default.graphsafe_set_state(former)


def _default_of(device: torch.device) -> torch.Generator:
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]
