"""Muon: momentum, orthogonalized (Keller Jordan 2024, https://kellerjordan.github.io/posts/muon).

Every step is a function of tensors on the device: nothing is read from it, and shapes never change.

Shapes: B matrices in a batch, R rows (filters), C columns (everything else).
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor

from search.training.foreach import ForeachOptimizer, Group, count_step

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Jordan's coefficients: steep at 0, so that small singular values grow fast, at the price of ending within
about [0.7, 1.2] in place of at 1."""


def orthogonalize(matrices_BRC: Tensor, iterations: int) -> Tensor:
    """Roughly U V^T of each matrix U S V^T: every singular value brought near 1.

    X = G / ||G||; then, ``iterations`` times, X = a X + (b A + c A^2) X with A = X X^T (Newton-Schulz), or
    X = a X + X (b A + c A^2) with A = X^T X, which is smaller where R > C and comes to the same. In bf16 on
    CUDA, where the iteration is stable and fast.
    """
    a, b, c = QUINTIC
    tall = matrices_BRC.shape[1] > matrices_BRC.shape[2]
    x: Tensor = matrices_BRC / (torch.linalg.vector_norm(matrices_BRC, dim=(1, 2), keepdim=True) + 1e-7)
    x = x.bfloat16() if x.is_cuda else x
    for _ in range(iterations):
        gram = torch.bmm(x.mT, x) if tall else torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        left, right = (x, polynomial) if tall else (polynomial, x)
        x = torch.baddbmm(x, left, right, beta=a)
    return x.to(matrices_BRC.dtype)


class Muon(ForeachOptimizer):
    """Muon in the groups with ``orthogonal``, AdamW in the others, at one learning rate for both.

    Orthogonal: m = momentum * m + (1 - momentum) * g; with Nesterov's momentum u = momentum * m
    + (1 - momentum) * g, else u = m; then w = (1 - lr * decay) * w - lr * sqrt(max(1, R / C)) * ortho(u).
    Convolutions count as matrices of filters by all else. AdamW: Loshchilov and Hutter 2019, algorithm 2, at
    ``lr * adamw_ratio``.
    """

    def __init__(
        self,
        groups: list[Group],
        lr: Tensor,
        *,
        momentum: float,
        nesterov: bool,
        iterations: int,
        adamw_ratio: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """``momentum`` and ``betas`` are in [0, 1), the others above 0."""
        super().__init__(
            groups,
            lr,
            orthogonal=False,
            momentum=momentum,
            nesterov=nesterov,
            iterations=iterations,
            adamw_ratio=adamw_ratio,
            betas=betas,
            eps=eps,
        )

    def _update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        update = self._orthogonal_update if group["orthogonal"] else self._adamw_update
        update(group, parameters, gradients)

    def _orthogonal_update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        means, momentum = self._states(parameters, "mean"), group["momentum"]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        updates = list(torch._foreach_lerp(gradients, means, momentum)) if group["nesterov"] else means
        steps = _orthogonalized(updates, group["iterations"])
        torch._foreach_mul_(steps, [_growth(parameter) for parameter in parameters])
        torch._foreach_mul_(steps, group["lr"])
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_sub_(parameters, steps)

    def _adamw_update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        count = count_step(group).float()  # as the kernel wants it, for each parameter
        beta1, beta2 = group["betas"]
        torch._fused_adamw_(
            parameters,
            gradients,
            self._states(parameters, "mean"),
            self._states(parameters, "square"),
            [],
            [count] * len(parameters),
            lr=group["lr"] * group["adamw_ratio"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


def _orthogonalized(updates: list[Tensor], iterations: int) -> list[Tensor]:
    """Each update as a matrix of filters by all else, orthogonalized: one batch for each shape."""
    alike: dict[torch.Size, list[int]] = defaultdict(list)
    for index, update in enumerate(updates):
        alike[update.shape].append(index)
    found: dict[int, Tensor] = {}
    for shape, indices in alike.items():
        matrices_BRC = torch.stack([updates[index] for index in indices]).flatten(2)
        batch = orthogonalize(matrices_BRC, iterations).view(len(indices), *shape)
        found.update(zip(indices, batch.unbind(), strict=True))
    return [found[index] for index in range(len(updates))]


def _growth(parameter: Tensor) -> float:
    """What tall matrices are multiplied by, so that an output moves as far as that of a square one."""
    rows = parameter.shape[0]
    columns = parameter.numel() // rows
    return math.sqrt(max(1.0, rows / columns))
