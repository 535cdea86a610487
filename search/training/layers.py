"""The layers that networks are put together from: activation, normalization, dropout, and their order.

Shapes: N images of a batch, C channels, H height, W width, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search.training.registry import Registry

activations: Registry[Callable[[], nn.Module]] = Registry("activation")
activations.register("relu")(lambda: nn.ReLU(inplace=True))
activations.register("leaky-relu")(lambda: nn.LeakyReLU(0.01, inplace=True))
activations.register("tanh")(nn.Tanh)
activations.register("elu")(lambda: nn.ELU(inplace=True))
activations.register("gelu")(nn.GELU)
activations.register("silu")(lambda: nn.SiLU(inplace=True))


@dataclass(frozen=True)
class NormSettings:
    """What normalizations are built with; each takes what concerns it."""

    groups: int = 8
    """Groups of group normalization."""
    momentum: float = 0.1
    """Share of a batch's statistics in batch normalization's running ones."""
    ghost_batches: int = 1
    """Parts of the batch that batch normalization takes by themselves."""


class _Ghostly(_BatchNorm):
    """Batch normalization over parts of the batch (Hoffer et al. 2017, arXiv:1705.08741, algorithm 1).

    In training the batch is cut into ``parts`` runs of images, equal or one longer, each normalized by its
    own statistics; the running statistics take in one part after the other. Evaluation uses these.
    """

    def __init__(self, channels: int, momentum: float, parts: int) -> None:
        super().__init__(channels, momentum=momentum)
        self.parts = parts

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return super().forward(inputs)
        return torch.cat([super(_Ghostly, self).forward(part) for part in inputs.tensor_split(self.parts)])


class GhostBatchNorm2d(_Ghostly, nn.BatchNorm2d):
    """For feature maps (N, C, H, W)."""


class GhostBatchNorm1d(_Ghostly, nn.BatchNorm1d):
    """For features (N, F)."""


map_normalizations: Registry[Callable[[int, NormSettings], nn.Module]] = Registry("normalization")
"""For feature maps (N, C, H, W); arguments: channels and settings."""


@map_normalizations.register("batch")
def batch_normalization(channels: int, settings: NormSettings) -> nn.Module:
    """Each channel over the batch and positions (Ioffe and Szegedy 2015)."""
    if settings.ghost_batches > 1:
        return GhostBatchNorm2d(channels, settings.momentum, settings.ghost_batches)
    return nn.BatchNorm2d(channels, momentum=settings.momentum)


@map_normalizations.register("layer")
def layer_normalization(channels: int, settings: NormSettings) -> nn.Module:
    """Each image over all channels and positions (Ba et al. 2016), scale and shift for each channel."""
    return nn.GroupNorm(1, channels)


@map_normalizations.register("instance")
def instance_normalization(channels: int, settings: NormSettings) -> nn.Module:
    """Each channel of each image over its positions (Ulyanov et al. 2016), with scale and shift."""
    return nn.InstanceNorm2d(channels, affine=True)


@map_normalizations.register("group")
def group_normalization(channels: int, settings: NormSettings) -> nn.Module:
    """Each image over the positions of a group of channels (Wu and He 2018)."""
    return nn.GroupNorm(settings.groups, channels)


vector_normalizations: Registry[Callable[[int, NormSettings], nn.Module]] = Registry(
    "normalization of vectors"
)
"""For the features (N, F) of fully connected layers. Instance and group norm are not defined there."""


@vector_normalizations.register("batch")
def batch_normalization_of_vectors(features: int, settings: NormSettings) -> nn.Module:
    """Each feature over the batch."""
    if settings.ghost_batches > 1:
        return GhostBatchNorm1d(features, settings.momentum, settings.ghost_batches)
    return nn.BatchNorm1d(features, momentum=settings.momentum)


@vector_normalizations.register("layer")
def layer_normalization_of_vectors(features: int, settings: NormSettings) -> nn.Module:
    """Each image over its features."""
    return nn.LayerNorm(features)


def map_normalization(
    name: str, channels: int, side: tuple[int, int], settings: NormSettings
) -> nn.Module | None:
    """The normalization called ``name`` for maps of ``channels`` and ``side`` (height, width); none: None.

    Raises:
        ValueError: for instance norm on 1x1 maps, where every output would be the shift alone.
    """
    if name == "none":
        return None
    if name == "instance" and side == (1, 1):
        raise ValueError("instance normalization needs maps of more than one position, but got 1x1")
    return map_normalizations[name](channels, settings)


def vector_normalization(name: str, features: int, settings: NormSettings) -> nn.Module | None:
    """The normalization called ``name`` for fully connected layers, where only batch and layer apply."""
    return vector_normalizations[name](features, settings) if name in vector_normalizations else None


def dropout(rate: float, kind: str) -> nn.Module | None:
    """Dropout (Srivastava et al. 2014) at ``rate`` in [0, 1); 0: None.

    ``kind`` "element" drops single activations, "channel" whole maps (Tompson et al. 2015).
    """
    if rate == 0:
        return None
    return nn.Dropout2d(rate) if kind == "channel" else nn.Dropout(rate)


def in_order(
    order: str,
    normalization: nn.Module | None,
    activation: nn.Module,
    pooling: nn.Module | None,
    drop: nn.Module | None,
) -> list[nn.Module]:
    """What follows a convolution or linear layer, in the order that ``Model.order`` names.

    norm-dropout: normalization, activation, pooling, dropout; dropout-norm: dropout, normalization,
    activation, pooling; norm and dropout: the other one is left out; neither: activation and pooling alone.
    """
    steps: dict[str, Sequence[nn.Module | None]] = {
        "norm-dropout": (normalization, activation, pooling, drop),
        "dropout-norm": (drop, normalization, activation, pooling),
        "norm": (normalization, activation, pooling),
        "dropout": (activation, pooling, drop),
        "neither": (activation, pooling),
    }
    return [step for step in steps[order] if step is not None]


class Residual(nn.Module):
    """branch(x) + shortcut(x)."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return self.shortcut(maps_NCHW) + self.branch(maps_NCHW)  # type: ignore[no-any-return]


class Subsample(nn.Module):
    """Every ``stride``-th position, from the first."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return maps_NCHW[:, :, :: self.stride, :: self.stride]

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


class MoreChannels(nn.Module):
    """``extra`` channels of zeros behind the others."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return F.pad(maps_NCHW, (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        return f"extra={self.extra}"


class StochasticDepth(nn.Module):
    """A residual branch that each image skips by itself, at ``rate`` in [0, 1), in training
    (Huang et al. 2016, arXiv:1603.09382).

    What is kept is divided by 1 - rate in training, instead of multiplied by it in evaluation as there: the
    same expectation.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        if not self.training:
            return maps_NCHW
        kept_N111 = maps_NCHW.new_empty((len(maps_NCHW), 1, 1, 1)).bernoulli_(1 - self.rate)
        return maps_NCHW * (kept_N111 / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class SqueezeExcite(nn.Module):
    """Channels scaled by sigmoid(W2 relu(W1 mean + b1) + b2) of their means (Hu et al. 2018,
    arXiv:1709.01507, equations 2 to 4); ``ratio`` is by how much W1 reduces the channels."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // ratio)
        self.excite = nn.Linear(channels // ratio, channels)

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        scales_NC: Tensor = self.excite(F.relu(self.squeeze(maps_NCHW.mean((2, 3))))).sigmoid()
        return maps_NCHW * scales_NC[:, :, None, None]


class GlobalAverage(nn.Module):
    """The mean of each feature map (Lin et al. 2014): (N, C, H, W) to (N, C)."""

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return maps_NCHW.mean((2, 3))


class Scale(nn.Module):
    """Multiplication by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor

    def extra_repr(self) -> str:
        return f"factor={self.factor}"
