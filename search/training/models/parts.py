"""What several networks are put together from: windows and their sizes, normalization, stems and heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from search.training.layers import (
    GlobalAverage,
    NormSettings,
    Subsample,
    activations,
    dropout,
    map_normalization,
    vector_normalization,
)
from search.training.models.table import Shape
from spaces import config

Side = tuple[int, int]
"""Height and width of feature maps."""


@dataclass(frozen=True)
class Window:
    """The square window of a convolution or a pooling."""

    kernel: int
    stride: int = 1
    padding: int = 0

    def side(self, side: Side) -> Side:
        """The side of what comes out of maps of this side."""
        height, width = ((length + 2 * self.padding - self.kernel) // self.stride + 1 for length in side)
        return height, width

    def convolution(self, channels: int, width: int, bias: bool) -> nn.Conv2d:
        return nn.Conv2d(channels, width, self.kernel, self.stride, self.padding, bias=bias)

    def max_pooling(self) -> nn.MaxPool2d:
        return nn.MaxPool2d(self.kernel, self.stride, self.padding)


SAME = Window(3, padding=1)
"""A 3x3 convolution that keeps the side."""
STRIDED = Window(3, stride=2, padding=1)
"""A 3x3 convolution that halves the side."""
HALVING = Window(2, stride=2)


def least_side(windows: Iterable[Window]) -> int:
    """The least side of an image that leaves at least one position after all windows."""
    side = 1
    for window in reversed(list(windows)):
        side = max((side - 1) * window.stride + window.kernel - 2 * window.padding, 1)
    return side


def norm_settings(model: config.Network) -> NormSettings:
    """What a network's normalizations are built with."""
    return NormSettings(model.groups, model.batch_norm_momentum, model.ghost_batches)


def norm_of_maps(model: config.Network, channels: int, side: Side) -> nn.Module | None:
    """The network's normalization for maps of this many channels and this side; None for none."""
    return map_normalization(model.normalization, channels, side, norm_settings(model))


def norm_of_vectors(model: config.Network, features: int) -> nn.Module | None:
    """The network's normalization in fully connected layers; None where there is none."""
    return vector_normalization(model.normalization, features, norm_settings(model))


def present(*layers: nn.Module | None) -> list[nn.Module]:
    """The layers that are there."""
    return [layer for layer in layers if layer is not None]


def needs_bias(normalization: nn.Module | None) -> bool:
    """Whether a bias before this normalization has an effect: batch and instance norm subtract it again."""
    return not isinstance(normalization, (nn.BatchNorm2d, nn.InstanceNorm2d))


def block_rates(rate: float | tuple[float, ...], profile: str, blocks: int) -> list[float]:
    """The dropout rate of each block: as listed, constant, or rising linearly to ``rate`` in the last."""
    if isinstance(rate, tuple):
        return list(rate)
    if profile == "constant":
        return [rate] * blocks
    return [rate * (block + 1) / blocks for block in range(blocks)]


def dropout_rates(model: config.DropoutNetwork) -> list[float]:
    """The dropout rate of each of the network's blocks."""
    return block_rates(model.dropout, model.dropout_profile, model.blocks)


def patchify(patch: int, channels: int, width: int, shape: Shape, bias: bool) -> tuple[nn.Conv2d, Side]:
    """A convolution over patches that do not overlap, and the side of its maps.

    Raises:
        ValueError: if the patches do not divide the image.
    """
    if shape.height % patch or shape.width % patch:
        raise ValueError(
            f"patch_size must divide the image's sides, but got patches of {patch} and images of "
            f"{shape.height}x{shape.width}"
        )
    window = Window(patch, stride=patch)
    return window.convolution(channels, width, bias), window.side(shape.side)


def first_convolution(
    model: config.ResidualNetwork, shape: Shape, width: int, bias: bool
) -> tuple[nn.Conv2d, Side]:
    """The stem that the configuration names, and the side of its maps."""
    if model.stem == "patchify":
        return patchify(model.patch_size, shape.channels, width, shape, bias)
    return SAME.convolution(shape.channels, width, bias), shape.side


def projection(channels: int, width: int, stride: int, bias: bool) -> list[nn.Module]:
    """A 1x1 convolution with a stride, for shortcuts.

    The positions are picked first: with a stride of its own, and fewer than 16 channels, the convolution's
    backward pass on a CPU writes beyond its memory (oneDNN issue 6035).
    """
    return present(Subsample(stride) if stride > 1 else None, nn.Conv2d(channels, width, 1, bias=bias))


def conv_norm_act(
    model: config.Network, channels: int, width: int, side: Side, window: Window
) -> list[nn.Module]:
    """Convolution, normalization and activation; ``side`` is that of the incoming maps."""
    normalization = norm_of_maps(model, width, window.side(side))
    convolution = window.convolution(channels, width, needs_bias(normalization))
    return present(convolution, normalization, activations[model.activation]())


def average_head(features: int, classes: int, rate: float) -> list[nn.Module]:
    """Global average pooling, dropout at ``rate`` and the classifier."""
    return present(GlobalAverage(), dropout(rate, "element"), nn.Linear(features, classes))
