"""First weights of convolutions and fully connected layers, drawn from the default generator."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import init

from search.training.registry import Registry

CONSTANT = 0.01
"""Every weight of the "constant" initialization."""

initializations: Registry[Callable[[Tensor, float], object]] = Registry("initialization")
"""Functions (weight, gain) that fill the weight in place."""


def initialize(network: nn.Module, scheme: str, activation: str) -> None:
    """Fill the weights of all convolutions and fully connected layers by ``scheme``, and their biases with 0.

    "default" leaves them as PyTorch drew them. Normalizations stay as they are.
    """
    if scheme == "default":
        return
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            initializations[scheme](module.weight, gain(activation))
            if module.bias is not None:
                init.zeros_(module.bias)


def gain(activation: str) -> float:
    """What keeps the variance through an activation: sqrt(2 / (1 + slope^2)) for ReLU and LeakyReLU
    (He et al. 2015, equation 15), 5/3 for tanh as in torch; ELU, GELU and SiLU take ReLU's."""
    if activation == "tanh":
        return 5 / 3
    slope = 0.01 if activation == "leaky-relu" else 0.0
    return math.sqrt(2 / (1 + slope**2))


@initializations.register("xavier-uniform")
def xavier_uniform(weight: Tensor, gain: float) -> None:
    """Uniform of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, equation 16), without gain."""
    init.xavier_uniform_(weight)


@initializations.register("xavier-normal")
def xavier_normal(weight: Tensor, gain: float) -> None:
    """Normal of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, equation 12), without gain."""
    init.xavier_normal_(weight)


@initializations.register("kaiming-uniform")
def kaiming_uniform(weight: Tensor, gain: float) -> None:
    """Uniform of variance gain^2 / fan_in (He et al. 2015, equation 10)."""
    bound = gain * math.sqrt(3 / _fan_in(weight))
    init.uniform_(weight, -bound, bound)


@initializations.register("kaiming-normal")
def kaiming_normal(weight: Tensor, gain: float) -> None:
    """Normal of variance gain^2 / fan_in (He et al. 2015, equation 10)."""
    init.normal_(weight, 0.0, gain / math.sqrt(_fan_in(weight)))


@initializations.register("orthogonal")
def orthogonal(weight: Tensor, gain: float) -> None:
    """Rows (or columns, if these are fewer) orthogonal and of length gain (Saxe et al. 2014)."""
    init.orthogonal_(weight, gain)


@initializations.register("constant")
def constant(weight: Tensor, gain: float) -> None:
    """Every weight 0.01: all filters of a layer get the same gradient and never differ."""
    init.constant_(weight, CONSTANT)


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()
