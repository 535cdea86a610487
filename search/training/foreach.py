"""What optimizers have in common that update all parameters of a group at once, on the device alone.

A small kernel costs a GPU microseconds whatever it computes. So each operation is one of torch's foreach
functions on all tensors of a group, and what depends on the number of steps is computed once for a group:
torch's own optimizers, built to be captured, count for each parameter and compute it as often.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Group = dict[str, Any]
"""Parameters that share their settings, and the count of their steps."""


class ForeachOptimizer(Optimizer):
    """Updates the parameters of a group together, by operations that a CUDA graph can capture.

    A parameter without a gradient is left alone: it neither moves nor decays. The steps that a group counts
    are those in which any of its parameters has a gradient. So a parameter whose gradients begin late is
    corrected as if they had been 0 until then, where torch's own optimizers would count from its first.
    """

    def __init__(self, groups: list[Group], lr: Tensor, **settings: Any) -> None:
        """``lr`` is a 0-d tensor on the parameters' device, read anew at every step; ``settings`` hold for
        the groups that do not say otherwise."""
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, **settings})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 (torch's signature)
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update(group, parameters, [parameter.grad for parameter in parameters])

    def _update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Move the parameters, all of one group; ``gradients`` must stay as they are."""
        raise NotImplementedError

    def _states(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        """What is kept for each parameter under this name, of its shape; 0 at first."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


class AdaptiveOptimizer(ForeachOptimizer):
    """One of Adam's kin: gradients are averaged, and so is a measure of their size."""

    def __init__(self, groups: list[Group], lr: Tensor, *, betas: tuple[float, float], eps: float) -> None:
        """``betas`` are the decays of both averages, in [0, 1); ``eps`` > 0 keeps sizes away from 0."""
        super().__init__(groups, lr, betas=betas, eps=eps)


def count_step(group: Group) -> Tensor:
    """Count one more step of the group: how many it has taken, this one included, shape ()."""
    return kept_scalar(group, "step", start=0.0).add_(1)


def kept_scalar(group: Group, name: str, start: float) -> Tensor:
    """A number that the group keeps from step to step, shape (), saved and loaded with its settings.

    In float64: in float32, 1 - 0.999 has four digits.
    """
    if name not in group:
        group[name] = torch.full((), start, dtype=torch.float64, device=group["params"][0].device)
    scalar: Tensor = group[name]
    return scalar


def with_decay(group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """The gradients of a loss that has weight_decay / 2 * ||w||^2 added to it."""
    if not group["weight_decay"]:
        return gradients
    return list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))


def average_squares_(squares: list[Tensor], gradients: list[Tensor], beta: float) -> None:
    """squares = beta * squares + (1 - beta) * gradients^2, in place."""
    torch._foreach_mul_(squares, beta)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta)


def bias_correction(beta: float, step: Tensor) -> Tensor:
    """1 - beta^step: the weights of an average of decay ``beta`` that began at 0, after so many steps."""
    return torch.rsub(beta**step, 1)
