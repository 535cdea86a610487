"""Optimizers. Their builders are in ``search.training.optimizers``, under the same names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spaces.config.section import NonNegative, Positive, Rate, Section


class _Optimizer(Section):
    lr: Positive
    """Learning rate per batch, as written: never scaled silently."""
    weight_decay: NonNegative = 0.0
    """Weight decay; L2 penalty in the gradient, decoupled in AdamW. 0: none."""
    decay_norms_and_biases: bool = False
    """Whether weight decay also pulls at normalization weights and biases."""


class SGD(_Optimizer):
    """Stochastic gradient descent (torch.optim.SGD)."""

    name: Literal["sgd"] = "sgd"
    lr: Positive = 0.05
    momentum: Rate = 0.9
    nesterov: bool = True
    """Nesterov's momentum; has no effect, and must be off, without momentum."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise ValueError(f"nesterov needs momentum > 0, but got momentum={self.momentum}")
        return self


class _Adaptive(_Optimizer):
    lr: Positive = 1e-3
    beta1: Rate = 0.9
    """Decay of the running mean of gradients."""
    beta2: Rate = 0.999
    """Decay of the running mean of squared gradients (of the infinity norm, in Adamax)."""
    eps: Positive = 1e-8


class Adam(_Adaptive):
    """Kingma and Ba 2015 (torch.optim.Adam)."""

    name: Literal["adam"] = "adam"


class AdamW(_Adaptive):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = "adamw"


class NAdam(_Adaptive):
    """Adam with Nesterov momentum (Dozat 2016)."""

    name: Literal["nadam"] = "nadam"


class Adamax(_Adaptive):
    """Adam by the infinity norm (Kingma and Ba 2015, section 7.1)."""

    name: Literal["adamax"] = "adamax"


class RMSprop(_Optimizer):
    """Hinton's RMSprop (torch.optim.RMSprop)."""

    name: Literal["rmsprop"] = "rmsprop"
    lr: Positive = 1e-3
    alpha: Rate = 0.99
    """Decay of the running mean of squared gradients."""
    momentum: Rate = 0.0
    eps: Positive = 1e-8


Optimizer = Annotated[SGD | Adam | AdamW | NAdam | Adamax | RMSprop, Field(discriminator="name")]
