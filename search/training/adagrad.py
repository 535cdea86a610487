"""Adagrad (Duchi et al. 2011) that never reads from the device.

torch's own keeps its step count on the host and turns a learning rate that is a tensor into a number, so that
its step cannot be captured in a CUDA graph.
"""

from __future__ import annotations

import torch
from torch import Tensor

from search.training.foreach import ForeachOptimizer, Group, with_decay


class Adagrad(ForeachOptimizer):
    """s = s + g^2, w = w - lr * g / (sqrt(s) + eps), with g the gradient and weight_decay * w."""

    def __init__(self, groups: list[Group], lr: Tensor, *, eps: float) -> None:
        """``eps`` > 0."""
        super().__init__(groups, lr, eps=eps)

    def _update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        gradients = with_decay(group, parameters, gradients)
        sums = self._states(parameters, "sum")
        torch._foreach_addcmul_(sums, gradients, gradients)
        scales = torch._foreach_sqrt(sums)
        torch._foreach_add_(scales, group["eps"])
        steps = torch._foreach_mul(gradients, group["lr"])
        torch._foreach_addcdiv_(parameters, steps, scales, value=-1)
