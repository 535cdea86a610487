"""RAdam: Adam with a rectified variance, as torch.optim.RAdam computes it."""

from __future__ import annotations

import torch
from torch import Tensor

from search.training.foreach import (
    AdaptiveOptimizer,
    Group,
    average_squares_,
    bias_correction,
    count_step,
    with_decay,
)

SHORTEST = 5.0
"""Length of the average of squares above which it is trusted: torch's; the paper's is 4."""


class RAdam(AdaptiveOptimizer):
    """Adam that goes without its average of squares while that is of too few steps.

    At step t: m = b1 m + (1 - b1) g and v = b2 v + (1 - b2) g^2; the average v is of the length
    r(t) = R - 2 t b2^t / (1 - b2^t), with R = 2 / (1 - b2) - 1. Up to a length of 5,
    w = w - lr / (1 - b1^t) * m; above, that step is multiplied by
    sqrt((r - 4) (r - 2) R / ((R - 4) (R - 2) r)) * sqrt(1 - b2^t) / (sqrt(v) + eps). g is the gradient and
    weight_decay * w. Liu et al. 2020 (arXiv:1908.03265), algorithm 2.
    ``betas`` are b1 and b2.
    """

    def _update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        gradients = with_decay(group, parameters, gradients)
        means, squares = self._states(parameters, "mean"), self._states(parameters, "square")
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        average_squares_(squares, gradients, beta2)
        plain, rectified = _rates(group, count_step(group))
        rates = torch._foreach_sqrt(squares)
        torch._foreach_add_(rates, group["eps"])
        torch._foreach_reciprocal_(rates)
        torch._foreach_mul_(rates, rectified.to(means[0].dtype))
        # without alpha, torch takes the tensor for a number and reads it
        torch._foreach_add_(rates, plain.to(means[0].dtype), alpha=1)
        torch._foreach_addcmul_(parameters, means, rates, value=-1)


def _rates(group: Group, step: Tensor) -> tuple[Tensor, Tensor]:
    """The learning rates without and with division by sqrt(v) + eps, one of which is 0; shape () each."""
    beta1, beta2 = group["betas"]
    rate = group["lr"] / bias_correction(beta1, step)
    forgotten = beta2**step
    correction = torch.rsub(forgotten, 1)
    longest = 2 / (1 - beta2) - 1
    length = torch.rsub(step * forgotten / correction, longest, alpha=2)
    # where the longest is too short, what follows is 0 by this, in place of a division by 0
    whole = longest / ((longest - 4) * (longest - 2)) if longest > SHORTEST else 0.0
    rectification = ((length - 4) * (length - 2) / length * correction * whole).sqrt_()
    too_short = length <= SHORTEST
    return rate * too_short, (rate * rectification).masked_fill(too_short, 0)
