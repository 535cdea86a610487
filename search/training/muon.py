"""Muon: momentum, orthogonalized (Keller Jordan 2024, https://kellerjordan.github.io/posts/muon).

Every step is a function of tensors on the device: nothing is read from it, and shapes never change.

Shapes: R rows (filters), C columns (everything else).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Jordan's coefficients: steep at 0, so that small singular values grow fast, at the price of ending within
about [0.7, 1.2] in place of at 1."""


def orthogonalize(matrix_RC: Tensor, iterations: int) -> Tensor:
    """Roughly U V^T of the matrix U S V^T: every singular value brought near 1.

    X = G / ||G||; then, ``iterations`` times, X = a X + (b A + c A^2) X with A = X X^T (Newton-Schulz). In
    bf16 on CUDA, where the iteration is stable and fast.
    """
    a, b, c = QUINTIC
    tall = matrix_RC.shape[0] > matrix_RC.shape[1]
    x = matrix_RC.T if tall else matrix_RC
    x = x / (x.norm() + 1e-7)
    x = x.bfloat16() if x.is_cuda else x
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal_RC: Tensor = x.T if tall else x
    return orthogonal_RC.to(matrix_RC.dtype)


class Muon(Optimizer):
    """Muon in the groups with ``orthogonal``, AdamW in the others, at one learning rate for both.

    Orthogonal: m = momentum * m + (1 - momentum) * g; with Nesterov's momentum u = momentum * m
    + (1 - momentum) * g, else u = m; then w = (1 - lr * decay) * w - lr * sqrt(max(1, R / C)) * ortho(u).
    Convolutions count as matrices of filters by all else. AdamW: Loshchilov and Hutter 2019, algorithm 2, at
    ``lr * adamw_ratio``.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: Tensor,
        *,
        momentum: float,
        nesterov: bool,
        iterations: int,
        adamw_ratio: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """``lr`` is a 0-d tensor on the parameters' device, read anew at every step."""
        defaults = {
            "lr": lr,
            "weight_decay": 0.0,
            "orthogonal": False,
            "momentum": momentum,
            "nesterov": nesterov,
            "iterations": iterations,
            "adamw_ratio": adamw_ratio,
            "betas": betas,
            "eps": eps,
            "capturable": True,  # torch then keeps "step" on the device when a state is loaded
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 (torch's signature)
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            update = self._orthogonal_step if group["orthogonal"] else self._adamw_step
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(group, parameter, parameter.grad)

    def _orthogonal_step(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        state, momentum = self.state[parameter], group["momentum"]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        mean = state["momentum"].lerp_(gradient, 1 - momentum)
        update = gradient.lerp(mean, momentum) if group["nesterov"] else mean
        update_RC = orthogonalize(update.flatten(1), group["iterations"])
        rows, columns = update_RC.shape
        _decay(parameter, group["lr"], group["weight_decay"])
        parameter.sub_(group["lr"] * max(1.0, rows / columns) ** 0.5 * update_RC.view_as(parameter))

    def _adamw_step(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        state, (beta1, beta2), lr = self.state[parameter], group["betas"], group["lr"] * group["adamw_ratio"]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1 - beta1)
        square = state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        _decay(parameter, lr, group["weight_decay"])
        parameter.sub_(lr / (1 - beta1 ** state["step"]) * mean / scale)


def _decay(parameter: Tensor, lr: Tensor, weight_decay: float) -> None:
    if weight_decay:
        parameter.mul_(1 - lr * weight_decay)
