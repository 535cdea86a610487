"""Averages of a network's weights that are kept while it trains: a running one, and Lookahead's slow weights.

Each keeps a network of its own, the averaged one, in step with the trained one by tensor operations on the
device alone. Everything in floating point is averaged, normalization's running statistics too.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Average(Protocol):
    """A network that follows another one."""

    network: nn.Module
    every: int
    """Steps of training from one update to the next."""

    def update(self) -> None:
        """Take in the trained network; called after every ``every``-th of its steps."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class _Follower:
    """The averaged network, the number of steps that it has followed, and the state of both."""

    def __init__(self, network: nn.Module, every: int = 1) -> None:
        """Start from the network's present weights, on its device."""
        self.every = every
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._steps = torch.zeros((), device=next(network.parameters()).device)
        self._trained, self._trained_counts = _by_kind(network)
        self._averaged, self._counts = _by_kind(self.network)

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._steps.copy_(state["steps"])

    def _count(self) -> None:
        self._steps += self.every
        if self._counts:
            torch._foreach_copy_(self._counts, self._trained_counts)


class RunningAverage(_Follower):
    """averaged = d * averaged + (1 - d) * trained after each step, d = min(decay, (1 + t) / (10 + t)).

    t counts the steps from 1, so that the untrained weights are soon forgotten (as in TensorFlow's
    ``ExponentialMovingAverage``). ``decay`` is in [0, 1); at 0 the average is the trained network.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self._decay = decay

    @torch.no_grad()
    def update(self) -> None:
        self._count()
        decay = ((1 + self._steps) / (10 + self._steps)).clamp(max=self._decay)
        _blend_(self._averaged, self._trained, 1 - decay)


class Lookahead(_Follower):
    """Zhang et al. 2019 (arXiv:1907.08610), algorithm 1: every k steps slow = slow + share * (fast - slow),
    and the fast (trained) weights go on from the slow ones.

    The share is ``share``, or with a cubic decline 1 - (1 - share) * (t / steps) ** 3 at step t of ``steps``
    (airbench, arXiv:2404.00498, where share = 1 - 0.95 ** 5 and k = 5).
    """

    def __init__(self, network: nn.Module, every: int, share: float, decline: str, steps: int) -> None:
        super().__init__(network, every)
        self._share = share
        self._cubic_steps = steps if decline == "cubic" else None

    @torch.no_grad()
    def update(self) -> None:
        self._count()
        _blend_(self._averaged, self._trained, self._present_share())
        torch._foreach_copy_(self._trained, self._averaged)

    def _present_share(self) -> Tensor:
        if self._cubic_steps is None:
            return torch.full_like(self._steps, self._share)
        return 1 - (1 - self._share) * (self._steps / self._cubic_steps) ** 3


def _by_kind(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The network's tensors in floating point, and its counters."""
    tensors = list(network.state_dict().values())
    return [t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()]


def _blend_(targets: list[Tensor], sources: list[Tensor], weight: Tensor) -> None:
    """targets = (1 - weight) * targets + weight * sources, in place; exact for a weight of 0 and of 1."""
    moved = torch._foreach_mul(sources, weight)
    torch._foreach_mul_(targets, 1 - weight)
    torch._foreach_add_(targets, moved)
