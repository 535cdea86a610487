"""Optimizers: from a section of the configuration to a torch optimizer whose learning rate is a tensor.

The rate is a tensor that the engine overwrites before each step, and on CUDA every optimizer is built so that
its step can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from search.training.registry import Registry
from spaces import config

Groups = list[dict[str, Any]]
optimizers: Registry[Callable[..., Optimizer]] = Registry("optimizer")
"""Builders: (configuration section, parameter groups, learning rate as a tensor) -> optimizer."""


def build_optimizer(optimizer: config.Optimizer, network: nn.Module, lr: Tensor) -> Optimizer:
    """The optimizer of all of the network's parameters; ``lr`` is a 0-d float32 tensor on their device.

    Weight decay spares parameters of one dimension (norms and biases) unless the configuration says so.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    matrices = [p for p in parameters if p.ndim > 1 or optimizer.decay_norms_and_biases]
    vectors = [p for p in parameters if p.ndim <= 1 and not optimizer.decay_norms_and_biases]
    groups = [
        {"params": matrices, "weight_decay": optimizer.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return optimizers[optimizer.name](optimizer, [group for group in groups if group["params"]], lr)


def _adaptive(optimizer: config.Adam | config.AdamW | config.NAdam | config.Adamax) -> dict[str, Any]:
    return {"betas": (optimizer.beta1, optimizer.beta2), "eps": optimizer.eps}


@optimizers.register("sgd")
def sgd(optimizer: config.SGD, groups: Groups, lr: Tensor) -> Optimizer:
    return torch.optim.SGD(
        groups, lr=lr, momentum=optimizer.momentum, nesterov=optimizer.nesterov, fused=True
    )


@optimizers.register("adam")
def adam(optimizer: config.Adam, groups: Groups, lr: Tensor) -> Optimizer:
    return torch.optim.Adam(groups, lr=lr, **_adaptive(optimizer), fused=True, capturable=lr.is_cuda)


@optimizers.register("adamw")
def adamw(optimizer: config.AdamW, groups: Groups, lr: Tensor) -> Optimizer:
    return torch.optim.AdamW(groups, lr=lr, **_adaptive(optimizer), fused=True, capturable=lr.is_cuda)


@optimizers.register("nadam")
def nadam(optimizer: config.NAdam, groups: Groups, lr: Tensor) -> Optimizer:
    return torch.optim.NAdam(groups, lr=lr, **_adaptive(optimizer), foreach=lr.is_cuda, capturable=lr.is_cuda)


@optimizers.register("adamax")
def adamax(optimizer: config.Adamax, groups: Groups, lr: Tensor) -> Optimizer:
    return torch.optim.Adamax(
        groups, lr=lr, **_adaptive(optimizer), foreach=lr.is_cuda, capturable=lr.is_cuda
    )


@optimizers.register("rmsprop")
def rmsprop(optimizer: config.RMSprop, groups: Groups, lr: Tensor) -> Optimizer:
    return torch.optim.RMSprop(
        groups,
        lr=lr,
        alpha=optimizer.alpha,
        momentum=optimizer.momentum,
        eps=optimizer.eps,
        foreach=lr.is_cuda,
        capturable=lr.is_cuda,
    )
