"""Adamax: Adam by the infinity norm, as torch.optim.Adamax computes it."""

from __future__ import annotations

import torch
from torch import Tensor

from search.training.foreach import AdaptiveOptimizer, Group, bias_correction, count_step, with_decay


class Adamax(AdaptiveOptimizer):
    """m = b1 m + (1 - b1) g, u = max(b2 u, |g| + eps), w = w - lr / (1 - b1^t) * m / u at step t.

    g is the gradient and weight_decay * w. Kingma and Ba 2015 (arXiv:1412.6980), algorithm 2; eps is torch's.
    ``betas`` are b1 and b2.
    """

    def _update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        gradients = with_decay(group, parameters, gradients)
        means, largest = self._states(parameters, "mean"), self._states(parameters, "largest")
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        sizes = torch._foreach_abs(gradients)
        torch._foreach_add_(sizes, group["eps"])
        torch._foreach_mul_(largest, beta2)
        torch._foreach_maximum_(largest, sizes)
        rate = group["lr"] / bias_correction(beta1, count_step(group))
        steps = torch._foreach_mul(means, rate.to(means[0].dtype))
        torch._foreach_addcdiv_(parameters, steps, largest, value=-1)
