"""The layers that networks are put together from: activation, normalization, dropout, and their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from search.training.registry import Registry

activations: Registry[Callable[[], nn.Module]] = Registry("activation")
activations.register("relu")(lambda: nn.ReLU(inplace=True))
activations.register("leaky-relu")(lambda: nn.LeakyReLU(0.01, inplace=True))
activations.register("tanh")(nn.Tanh)
activations.register("elu")(lambda: nn.ELU(inplace=True))
activations.register("gelu")(nn.GELU)
activations.register("silu")(lambda: nn.SiLU(inplace=True))

map_normalizations: Registry[Callable[[int, int], nn.Module]] = Registry("normalization")
"""For feature maps (N, C, H, W); arguments: channels and groups."""


@map_normalizations.register("batch")
def batch_normalization(channels: int, groups: int) -> nn.Module:
    """Each channel over the batch and positions (Ioffe and Szegedy 2015)."""
    return nn.BatchNorm2d(channels)


@map_normalizations.register("layer")
def layer_normalization(channels: int, groups: int) -> nn.Module:
    """Each image over all channels and positions (Ba et al. 2016), scale and shift for each channel."""
    return nn.GroupNorm(1, channels)


@map_normalizations.register("instance")
def instance_normalization(channels: int, groups: int) -> nn.Module:
    """Each channel of each image over its positions (Ulyanov et al. 2016), with scale and shift."""
    return nn.InstanceNorm2d(channels, affine=True)


@map_normalizations.register("group")
def group_normalization(channels: int, groups: int) -> nn.Module:
    """Each image over the positions of a group of channels (Wu and He 2018)."""
    return nn.GroupNorm(groups, channels)


vector_normalizations: Registry[Callable[[int], nn.Module]] = Registry("normalization of vectors")
"""For the features (N, F) of fully connected layers. Instance and group norm are not defined there."""
vector_normalizations.register("batch")(nn.BatchNorm1d)
vector_normalizations.register("layer")(nn.LayerNorm)


def map_normalization(name: str, channels: int, side: tuple[int, int], groups: int) -> nn.Module | None:
    """The normalization called ``name`` for maps of ``channels`` and ``side`` (height, width); none: None.

    Raises:
        ValueError: for instance norm on 1x1 maps, where every output would be the shift alone.
    """
    if name == "none":
        return None
    if name == "instance" and side == (1, 1):
        raise ValueError("instance normalization needs maps of more than one position, but got 1x1")
    return map_normalizations[name](channels, groups)


def vector_normalization(name: str, features: int) -> nn.Module | None:
    """The normalization called ``name`` for fully connected layers, where only batch and layer apply."""
    return vector_normalizations[name](features) if name in vector_normalizations else None


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
