"""Networks. Their builders are in ``search.training.models``, under the same names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from spaces.config.section import Count, Rate, Section, as_tuple

Normalization = Literal["batch", "layer", "instance", "group", "none"]
Activation = Literal["relu", "leaky-relu", "tanh", "elu", "gelu", "silu"]


class VGG(Section):
    """VGG-style blocks (Simonyan and Zisserman 2015): 3x3 convolutions, then 2x2 max pooling, then a head."""

    name: Literal["vgg"] = "vgg"
    widths: Annotated[tuple[Count, ...], Field(min_length=1), BeforeValidator(as_tuple)] = (32, 64, 128)
    """Filters of each block; their number is the number of blocks."""
    convolutions: Annotated[int, Field(ge=1, le=8)] = 2
    """3x3 convolutions in each block."""
    head: Annotated[int, Field(ge=0)] = 128
    """Units of the fully connected layer before the classifier; 0: no such layer."""
    activation: Activation = "relu"
    """The nonlinearity after every convolution and hidden layer."""
    normalization: Normalization = "batch"
    """Over what activations are normalized; layer: over channels and positions of one image. In the head,
    instance and group fall back to none, since they are not defined there."""
    groups: Count = 8
    """Groups of group normalization; must divide every width."""
    order: Literal["norm-dropout", "dropout-norm", "norm", "dropout", "neither"] = "norm-dropout"
    """Where dropout acts in a block's last convolution and in the head. norm-dropout: after normalization,
    activation and pooling; dropout-norm: right before normalization; the rest leave one or both out."""
    dropout: Rate = 0.0
    """Dropout rate of the last block; 0: none."""
    dropout_profile: Literal["constant", "rising"] = "constant"
    """constant: the same rate in every block; rising: growing linearly, dropout * i / blocks."""
    dropout_kind: Literal["element", "channel"] = "element"
    """element: each activation alone; channel: whole feature maps (Tompson et al. 2015)."""
    head_dropout: Rate = 0.0
    """Dropout rate in the head; 0: none."""

    @model_validator(mode="after")
    def _groups_divide(self) -> VGG:
        if self.normalization == "group" and any(width % self.groups for width in self.widths):
            raise ValueError(
                f"groups must divide every width, but got groups={self.groups}, widths={self.widths}"
            )
        return self


Model = VGG
