"""Optimizers. Their builders are in ``search.training.optimizers``, under the same names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spaces.config.section import CountOrNone, NonNegative, Positive, Rate, Section


class _Optimizer(Section):
    lr: Positive
    """Learning rate per batch, as written: never scaled silently."""
    weight_decay: NonNegative = 0.0
    """Weight decay; L2 penalty in the gradient, decoupled in AdamW and Muon. 0: none."""
    decay_norms_and_biases: bool = False
    """Whether weight decay also pulls at normalization weights and biases."""
    clip: NonNegative = 0.0
    """Largest Euclidean norm of all gradients together; a longer one is scaled down to it. 0: no limit."""
    lookahead_steps: CountOrNone = 0
    """Lookahead (Zhang et al. 2019): every so many steps slow weights move towards the trained ones, which go
    on from there; validation is of the slow ones. 0: off."""
    lookahead_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """How far the slow weights move each time: the paper's alpha; 1: all the way."""
    lookahead_decline: Literal["constant", "cubic"] = "constant"
    """cubic: they first move all the way, and the share falls to ``lookahead_share`` as the cube of the time
    passed (airbench, arXiv:2404.00498)."""


class SGD(_Optimizer):
    """Stochastic gradient descent (torch.optim.SGD)."""

    name: Literal["sgd"] = "sgd"
    lr: Positive = 0.05
    momentum: Rate = 0.9
    nesterov: bool = True
    """Nesterov's momentum; has no effect, and must be off, without momentum."""
    parametrization: Literal["plain", "decoupled"] = "plain"
    """decoupled: ``lr`` is how far 1,024 examples move the weights for each unit of gradient, momentum
    included, and ``weight_decay`` the share of the weights that 1,024 examples take away at the full rate
    (arXiv:2404.00498), so that batch size and momentum leave both alone; the rate per batch is
    lr * (1 - momentum) * batch_size / 1024."""

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


class RAdam(_Adaptive):
    """Adam with a rectified variance (Liu et al. 2020): a warm-up of its own."""

    name: Literal["radam"] = "radam"


class Adagrad(_Optimizer):
    """Duchi et al. 2011: each weight's rate falls with the sum of its squared gradients."""

    name: Literal["adagrad"] = "adagrad"
    lr: Positive = 1e-2
    eps: Positive = 1e-10


class Adadelta(_Optimizer):
    """Zeiler 2012: steps in the weights' own unit, so that the rate is usually 1."""

    name: Literal["adadelta"] = "adadelta"
    lr: Positive = 1.0
    rho: Rate = 0.9
    """Decay of the running means of squared gradients and squared steps."""
    eps: Positive = 1e-6


class Muon(_Optimizer):
    """Orthogonalized momentum (Jordan 2024) for matrices and convolutions, with AdamW for norms, biases and
    the output layer. Weight decay is decoupled in both."""

    name: Literal["muon"] = "muon"
    lr: Positive = 0.02
    momentum: Rate = 0.95
    nesterov: bool = True
    """Nesterov's momentum."""
    iterations: Annotated[int, Field(ge=1, le=20)] = 5
    """Newton-Schulz iterations of the orthogonalization."""
    adamw_ratio: Positive = 0.1
    """AdamW's learning rate as a multiple of ``lr``."""
    beta1: Rate = 0.9
    """AdamW's decay of the running mean of gradients."""
    beta2: Rate = 0.95
    """AdamW's decay of the running mean of squared gradients."""
    eps: Positive = 1e-8


Optimizer = Annotated[
    SGD | Adam | AdamW | NAdam | Adamax | RMSprop | RAdam | Adagrad | Adadelta | Muon,
    Field(discriminator="name"),
]
