"""What the sections of networks share: the settings that most of them take, and the checks on these."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from spaces.config.section import Count, Rate, Section, as_tuple
from spaces.text import brief

Normalization = Literal["batch", "layer", "instance", "group", "none"]
Activation = Literal["relu", "leaky-relu", "tanh", "elu", "gelu", "silu"]
Order = Literal["norm-dropout", "dropout-norm", "norm", "dropout", "neither"]
Initialization = Literal[
    "default",
    "xavier-uniform",
    "xavier-normal",
    "kaiming-uniform",
    "kaiming-normal",
    "orthogonal",
    "constant",
]
Stem = Literal["conv", "patchify"]
Patch = Annotated[int, Field(ge=2, le=16)]
Momentum = Annotated[float, Field(gt=0.0, le=1.0)]
Widths = Annotated[tuple[Count, ...], Field(min_length=1, max_length=64), BeforeValidator(as_tuple)]


def _as_rates(value: Any) -> float | tuple[float, ...]:
    rates = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    numbers = all(isinstance(rate, (int, float)) and not isinstance(rate, bool) for rate in rates)
    if not rates or not numbers or not all(0 <= rate < 1 for rate in rates):
        raise ValueError(
            f"must be a rate in [0, 1), or a list of them, one for each block, but got {brief(value)}"
        )
    floats = tuple(float(rate) for rate in rates)
    return floats if isinstance(value, (list, tuple)) else floats[0]


Rates = Annotated[float | tuple[float, ...], BeforeValidator(_as_rates)]
"""One rate for all blocks, or a list with one for each."""


class Network(Section):
    """The settings that all networks of ours share, but for airbench, which fixes most of them."""

    name: str
    activation: Activation = "relu"
    """The nonlinearity after every convolution and hidden layer."""
    normalization: Normalization = "batch"
    """Over what activations are normalized; layer: over channels and positions of one image. In fully
    connected layers, instance and group fall back to none, since they are not defined there."""
    groups: Count = 8
    """Groups of group normalization; must divide every width."""
    batch_norm_momentum: Momentum = 0.1
    """Share of a batch's statistics in batch normalization's running ones, at every step: PyTorch's
    convention, in which TensorFlow's 0.9 is 0.1."""
    ghost_batches: Count = 1
    """Parts that the batch is cut into, each batch-normalized by itself (Hoffer et al. 2017); 1: none."""
    head_dropout: Rate = 0.0
    """Dropout rate in the head: after each fully connected layer, or of globally pooled features; 0: none."""
    initialization: Initialization = "default"
    """First weights of convolutions and fully connected layers; default: PyTorch's. Kaiming (He et al. 2015)
    and orthogonal (Saxe et al. 2014) take the activation's gain, Xavier (Glorot and Bengio 2010) none.
    constant: every weight 0.01, so that all filters of a layer stay alike. Biases start at 0, in default as
    PyTorch draws them."""

    @property
    @abstractmethod
    def filters(self) -> tuple[int, ...]:
        """The width of every convolution that is normalized."""

    @property
    def blocks(self) -> int:
        """How many blocks dropout can have a rate for each."""
        return len(self.filters)

    @model_validator(mode="after")
    def _groups_divide(self) -> Network:
        if self.normalization == "group" and any(width % self.groups for width in self.filters):
            raise ValueError(
                f"groups must divide every width, but got groups={self.groups}, widths={self.filters}"
            )
        return self

    @model_validator(mode="after")
    def _ghosts_are_of_batch_normalization(self) -> Network:
        if self.ghost_batches > 1 and self.normalization != "batch":
            raise ValueError(
                "ghost_batches cut up batch normalization and must be 1 with another one, but got "
                f"ghost_batches={self.ghost_batches}, normalization={self.normalization}"
            )
        return self


class DropoutNetwork(Network):
    """A network with dropout in its blocks."""

    dropout: Rates = 0.0
    """Dropout rate of the last block, or a list with the rate of each; 0: none."""
    dropout_profile: Literal["constant", "rising"] = "constant"
    """constant: the same rate in every block; rising: growing linearly, dropout * i / blocks. A list is a
    profile of its own."""
    dropout_kind: Literal["element", "channel"] = "element"
    """element: each activation alone; channel: whole feature maps (Tompson et al. 2015)."""

    @model_validator(mode="after")
    def _dropout_fits_the_blocks(self) -> DropoutNetwork:
        if not isinstance(self.dropout, tuple):
            return self
        if len(self.dropout) != self.blocks:
            raise ValueError(
                f"dropout must list a rate for each of the {self.blocks} blocks, but got {self.dropout}"
            )
        if self.dropout_profile != "constant":
            raise ValueError(
                "dropout as a list is a profile of its own and needs dropout_profile constant, but got "
                f"dropout={self.dropout}, dropout_profile={self.dropout_profile}"
            )
        return self


class BlockNetwork(DropoutNetwork):
    """Blocks of convolutions, each ended by pooling, and fully connected layers."""

    order: Order = "norm-dropout"
    """Where dropout acts in a block's last convolution and in the head. norm-dropout: after normalization,
    activation and pooling; dropout-norm: right before normalization; the rest leave one or both out."""


class ResidualNetwork(DropoutNetwork):
    """Residual blocks, global pooling and a linear classifier."""

    dropout: Rates = 0.0
    """Dropout rate between the two convolutions of the last stage's residual blocks (Zagoruyko and Komodakis
    2016), or a list with the rate of each stage; 0: none."""
    stem: Stem = "conv"
    """The first convolution. conv: 3x3; patchify: over patches that do not overlap, so that all maps are
    smaller by patch_size (Dosovitskiy et al. 2021)."""
    patch_size: Patch = 2
    """Side of the patches of a patchify stem; must divide the image's sides."""
    squeeze_excite: Annotated[int, Field(ge=0, le=256)] = 0
    """Reduction ratio of squeeze-and-excitation at the end of every residual branch (Hu et al. 2018; 16
    there); 0: none."""
    stochastic_depth: Rate = 0.0
    """Rate at which an image skips the last residual branch, growing linearly from the first
    (Huang et al. 2016); 0: none."""

    @property
    @abstractmethod
    def residual_filters(self) -> tuple[int, ...]:
        """The width of each stage of residual blocks."""

    @property
    def filters(self) -> tuple[int, ...]:
        return self.residual_filters

    @property
    def blocks(self) -> int:
        return len(self.residual_filters)

    @model_validator(mode="after")
    def _squeezing_leaves_a_unit(self) -> ResidualNetwork:
        narrowest = min(self.residual_filters)
        if self.squeeze_excite > narrowest:
            raise ValueError(
                f"squeeze_excite must not exceed the narrowest block's {narrowest} filters, but got "
                f"{self.squeeze_excite}"
            )
        return self
