"""Adagrad (Duchi et al. 2011) that never reads from the device.

torch's own keeps its step count on the host and turns a learning rate that is a tensor into a number, so that
its step cannot be captured in a CUDA graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Adagrad(Optimizer):
    """s = s + g^2, w = w - lr * g / (sqrt(s) + eps), with g the gradient and weight_decay * w."""

    def __init__(self, groups: list[dict[str, Any]], lr: Tensor, eps: float) -> None:
        """``lr`` is a 0-d tensor on the parameters' device, read anew at every step."""
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 (torch's signature)
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update(group, parameters, [parameter.grad for parameter in parameters])

    def _update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        sums = [self._sum(parameter) for parameter in parameters]
        torch._foreach_addcmul_(sums, gradients, gradients)
        scales = torch._foreach_sqrt(sums)
        torch._foreach_add_(scales, group["eps"])
        steps = torch._foreach_mul(gradients, group["lr"])
        torch._foreach_div_(steps, scales)
        torch._foreach_sub_(parameters, steps)

    def _sum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["sum"] = torch.zeros_like(parameter)
        total: Tensor = state["sum"]
        return total
