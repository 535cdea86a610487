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

from search.training.adagrad import Adagrad
from search.training.adamax import Adamax
from search.training.muon import Muon
from search.training.nadam import NAdam
from search.training.radam import RAdam
from search.training.registry import Registry
from spaces import config

Groups = list[dict[str, Any]]
optimizers: Registry[Callable[..., Optimizer]] = Registry("optimizer")
"""Builders: (configuration section, parameter groups, learning rate as a tensor) -> optimizer."""


def build_optimizer(optimizer: config.Optimizer, network: nn.Module, lr: Tensor) -> Optimizer:
    """The optimizer of all of the network's parameters; ``lr`` is a 0-d float32 tensor on their device.

    Weight decay spares parameters of one dimension (norms and biases) unless the configuration says so.
    """
    weight_decay = coupled_decay(optimizer)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    matrices = [p for p in parameters if p.ndim > 1 or optimizer.decay_norms_and_biases]
    vectors = [p for p in parameters if p.ndim <= 1 and not optimizer.decay_norms_and_biases]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return optimizers[optimizer.name](optimizer, [group for group in groups if group["params"]], lr)


def full_rate(optimizer: config.Optimizer, batch_size: int) -> float:
    """The learning rate of the batch's mean gradient where the schedule is at 1.

    With SGD's decoupled parametrization it is lr * (1 - momentum) * batch_size / 1024. A gradient g moves the
    weights by rate * g / (1 - momentum) in all, and each image has 1 / batch_size of it, so that 1,024 images
    of gradient g move them by lr * g, whatever the momentum and the batch. airbench (arXiv:2404.00498)
    divides by 1 + 1 / (1 - momentum) in place of 1 / (1 - momentum): its 11.5 at momentum 0.85 is 10.0 here.
    """
    if isinstance(optimizer, config.SGD) and optimizer.parametrization == "decoupled":
        return optimizer.lr * (1 - optimizer.momentum) * batch_size / 1024
    return optimizer.lr


def coupled_decay(optimizer: config.Optimizer) -> float:
    """The weight decay as torch takes it, multiplied by the learning rate in every step.

    With SGD's decoupled parametrization it is weight_decay / lr: at the full rate 1,024 images then take away
    the share weight_decay of the weights, whatever the rate, the momentum and the batch.
    """
    if isinstance(optimizer, config.SGD) and optimizer.parametrization == "decoupled":
        return optimizer.weight_decay / optimizer.lr
    return optimizer.weight_decay


def _adaptive(
    optimizer: config.Adam | config.AdamW | config.NAdam | config.Adamax | config.RAdam | config.Muon,
) -> dict[str, Any]:
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
    return NAdam(groups, lr, **_adaptive(optimizer))


@optimizers.register("adamax")
def adamax(optimizer: config.Adamax, groups: Groups, lr: Tensor) -> Optimizer:
    return Adamax(groups, lr, **_adaptive(optimizer))


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


@optimizers.register("radam")
def radam(optimizer: config.RAdam, groups: Groups, lr: Tensor) -> Optimizer:
    return RAdam(groups, lr, **_adaptive(optimizer))


@optimizers.register("adagrad")
def adagrad(optimizer: config.Adagrad, groups: Groups, lr: Tensor) -> Optimizer:
    return Adagrad(groups, lr, eps=optimizer.eps)


@optimizers.register("adadelta")
def adadelta(optimizer: config.Adadelta, groups: Groups, lr: Tensor) -> Optimizer:
    return torch.optim.Adadelta(
        groups, lr=lr, rho=optimizer.rho, eps=optimizer.eps, foreach=lr.is_cuda, capturable=lr.is_cuda
    )


@optimizers.register("muon")
def muon(optimizer: config.Muon, groups: Groups, lr: Tensor) -> Optimizer:
    """Orthogonalizes every matrix but the last one, which is the output layer's."""
    last = [p for group in groups for p in group["params"] if p.ndim > 1][-1:]
    kinds: Groups = []
    for group in groups:
        for orthogonal in (True, False):
            chosen = [p for p in group["params"] if orthogonal == _is_hidden_matrix(p, last)]
            kinds.append({**group, "params": chosen, "orthogonal": orthogonal})
    return Muon(
        [kind for kind in kinds if kind["params"]],
        lr,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
        iterations=optimizer.iterations,
        adamw_ratio=optimizer.adamw_ratio,
        **_adaptive(optimizer),
    )


def _is_hidden_matrix(parameter: Tensor, last: list[Tensor]) -> bool:
    return parameter.ndim > 1 and all(parameter is not output for output in last)
