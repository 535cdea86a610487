"""Residual networks for small images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spaces.config.models.common import ResidualNetwork
from spaces.config.section import Count, CountOrNone, Positive


class ResNet(ResidualNetwork):
    """ResNet (He et al. 2016): for CIFAR (section 4.2 there) with depth 6n+2, three stages of n blocks; or
    ResNet-18 with its four stages of two blocks, a 3x3 stem without stride and no max pooling."""

    name: Literal["resnet"] = "resnet"
    depth: Annotated[int, Field(ge=8, le=1202)] = 20
    """Layers with weights: 6n+2 (20, 32, 44, 56, 110 in the paper), or 18."""
    width: CountOrNone = 0
    """Filters of the first stage, doubled in each further one; 0: as published, 16, or 64 at depth 18."""
    shortcut: Literal["projection", "padding"] = "projection"
    """Past a block that changes the shape. projection: 1x1 convolution and normalization (the paper's option
    B, there for ImageNet); padding: every other position, and zeros for new channels (its option A, for
    CIFAR)."""
    zero_init_last_norm: bool = False
    """Whether the last normalization of each residual branch starts with scale 0, so that every block starts
    as its shortcut (Goyal et al. 2017)."""

    @property
    def residual_filters(self) -> tuple[int, ...]:
        first = self.width or (64 if self.depth == 18 else 16)
        return tuple(first * 2**stage for stage in range(4 if self.depth == 18 else 3))

    @model_validator(mode="after")
    def _depth_is_a_layout(self) -> ResNet:
        if self.depth != 18 and (self.depth - 2) % 6:
            raise ValueError(f"depth must be 18 or 6n+2 (20, 32, 44, 56, 110), but got {self.depth}")
        return self

    @model_validator(mode="after")
    def _zero_needs_a_norm(self) -> ResNet:
        if self.zero_init_last_norm and self.normalization == "none":
            raise ValueError("zero_init_last_norm needs a normalization, but got normalization=none")
        return self


class WideResNet(ResidualNetwork):
    """WideResNet (Zagoruyko and Komodakis 2016): pre-activation blocks (He et al. 2016b) in three stages."""

    name: Literal["wide-resnet"] = "wide-resnet"
    depth: Annotated[int, Field(ge=10, le=1204)] = 16
    """Layers with weights: 6n+4 (16, 22, 28, 40 in the paper)."""
    widening: Count = 4
    """The paper's widening factor k: the stages have 16k, 32k and 64k filters."""

    @property
    def residual_filters(self) -> tuple[int, ...]:
        return (16 * self.widening, 32 * self.widening, 64 * self.widening)

    @property
    def filters(self) -> tuple[int, ...]:
        return (16, *self.residual_filters)

    @model_validator(mode="after")
    def _depth_is_a_layout(self) -> WideResNet:
        if (self.depth - 4) % 6:
            raise ValueError(f"depth must be 6n+4 (16, 22, 28, 40), but got {self.depth}")
        return self


class ResNet9(ResidualNetwork):
    """ResNet-9 (Page 2018, "How to train your ResNet"): four convolutions, the last three with max pooling,
    a residual block after the second and after the fourth, and global max pooling."""

    name: Literal["resnet9"] = "resnet9"
    width: Count = 64
    """Filters of the first convolution, doubled in each further one."""
    logit_scale: Positive = 0.125
    """What the logits are multiplied by."""

    @property
    def residual_filters(self) -> tuple[int, ...]:
        return (2 * self.width, 8 * self.width)

    @property
    def filters(self) -> tuple[int, ...]:
        return tuple(self.width * 2**layer for layer in range(4))
