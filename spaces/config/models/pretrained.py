"""torchvision's networks, from scratch or from trained weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from spaces.config.section import Count, FileName, Section
from spaces.text import brief

Architecture = Literal["resnet18", "vgg16", "mobilenet_v2", "efficientnet_b0"]
BLOCKS: dict[Architecture, int] = {"resnet18": 9, "vgg16": 7, "mobilenet_v2": 19, "efficientnet_b0": 9}
"""Into how many blocks each network divides before its head, for ``trainable``."""


def _as_trainable(value: Any) -> Any:
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not number and value not in ("all", "head"):
        raise ValueError(
            f"must be all, head, or a number of last blocks of at least 1, but got {brief(value)}"
        )
    return value


class Torchvision(Section):
    """A network of torchvision's with a new classifier, on images resized to its input. Activation,
    normalization and dropout are the network's own."""

    name: Literal["torchvision"] = "torchvision"
    architecture: Architecture = "resnet18"
    """resnet18 (He et al. 2016), vgg16 (Simonyan and Zisserman 2015, without batch normalization),
    mobilenet_v2 (Sandler et al. 2018) or efficientnet_b0 (Tan and Le 2019)."""
    pretrained: Literal["none", "imagenet"] = "none"
    """none: from scratch; imagenet: torchvision's IMAGENET1K_V1 weights, downloaded by it on first use."""
    weights: FileName = ""
    """A file with weights to start from, of torchvision's names: .safetensors, or anything else as torch.save
    wrote it. The classifier in it is not used. Empty: none."""
    input_size: Annotated[int, Field(ge=0, le=1024)] = 0
    """Side in pixels that images are resized to on the device, bilinear with antialiasing; at least 32, and
    224 in ImageNet training; 0: the image's own."""
    trainable: Annotated[Literal["all", "head"] | Count, BeforeValidator(_as_trainable)] = "all"
    """What is trained: all, only the new classifier (head), or it and the last N blocks (resnet18: 9, the
    stem and eight residual blocks; vgg16: 7, five between poolings and two hidden layers; mobilenet_v2: 19
    and efficientnet_b0: 9, their "features"). The rest is frozen and stays in evaluation mode."""

    @model_validator(mode="after")
    def _one_source(self) -> Torchvision:
        if self.weights and self.pretrained != "none":
            raise ValueError(
                "weights come from pretrained or from a file, not both, but got "
                f"pretrained={self.pretrained}, weights={self.weights}"
            )
        return self

    @model_validator(mode="after")
    def _frozen_is_trained(self) -> Torchvision:
        if self.trainable != "all" and self.pretrained == "none" and not self.weights:
            raise ValueError(
                "trainable other than all would freeze random weights without pretrained: imagenet or "
                f"weights: FILE, but got trainable={self.trainable}"
            )
        return self

    @model_validator(mode="after")
    def _blocks_are_there(self) -> Torchvision:
        blocks = BLOCKS[self.architecture]
        if isinstance(self.trainable, int) and self.trainable > blocks:
            raise ValueError(
                f"trainable must not exceed the {blocks} blocks of {self.architecture}, but got "
                f"{self.trainable}"
            )
        return self

    @model_validator(mode="after")
    def _input_survives_the_strides(self) -> Torchvision:
        if 0 < self.input_size < 32:
            raise ValueError(
                f"input_size must be 0 or at least 32, for the network halves it five times, but got "
                f"{self.input_size}"
            )
        return self
