"""NAdam: Adam with Nesterov's momentum, as torch.optim.NAdam computes it."""

from __future__ import annotations

import torch
from torch import Tensor

from search.training.foreach import (
    AdaptiveOptimizer,
    Group,
    average_squares_,
    bias_correction,
    count_step,
    kept_scalar,
    with_decay,
)

MOMENTUM_DECAY = 0.96**0.004
"""By which the momentum's distance from beta1 shrinks in a step (Dozat 2016)."""


class NAdam(AdaptiveOptimizer):
    """Adam whose step looks ahead: the momentum is that of the next step, and the gradient comes in at once.

    At step t with momentum mu(t) = b1 (1 - 0.96^(0.004 t) / 2) and P its product over the steps 1 to t:
    m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, and w = w - lr * ((1 - mu(t)) / (1 - P) * g
    + mu(t + 1) / (1 - P mu(t + 1)) * m) / (sqrt(v / (1 - b2^t)) + eps), with g the gradient and
    weight_decay * w. Dozat 2016, "Incorporating Nesterov Momentum into Adam", algorithm 8.
    ``betas`` are b1 and b2.
    """

    def _update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        gradients = with_decay(group, parameters, gradients)
        means, squares = self._states(parameters, "mean"), self._states(parameters, "square")
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        average_squares_(squares, gradients, beta2)
        step, dtype = count_step(group), means[0].dtype
        of_gradients, of_means = _rates(group, step)
        moves = torch._foreach_mul(gradients, of_gradients.to(dtype))
        torch._foreach_add_(moves, torch._foreach_mul(means, of_means.to(dtype)))
        scales = torch._foreach_sqrt(squares)
        torch._foreach_div_(scales, bias_correction(beta2, step).sqrt_().to(dtype))
        torch._foreach_add_(scales, group["eps"])
        torch._foreach_addcdiv_(parameters, moves, scales, value=-1)


def _rates(group: Group, step: Tensor) -> tuple[Tensor, Tensor]:
    """The learning rates of the gradients and of their means at this step, shape () each."""
    beta1, lr = group["betas"][0], group["lr"]
    decay = MOMENTUM_DECAY**step
    momentum = torch.rsub(decay, beta1, alpha=beta1 / 2)
    following = torch.rsub(decay, beta1, alpha=beta1 / 2 * MOMENTUM_DECAY)
    product = kept_scalar(group, "momentum_product", start=1.0).mul_(momentum)
    of_gradients = lr * torch.rsub(momentum, 1) / torch.rsub(product, 1)
    return of_gradients, lr * following / torch.rsub(product * following, 1)
