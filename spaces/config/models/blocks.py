"""Networks of convolutions, pooling and fully connected layers, from LeNet to VGG."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.config.models.common import BlockNetwork, Normalization, Patch, Rates, Stem, Widths
from spaces.config.section import Count, CountOrNone, Rate


class Tutorial(BlockNetwork):
    """The net of PyTorch's tutorial "Training a classifier", after LeNet-5 (LeCun et al. 1998): two 5x5
    convolutions without padding (6 and 16 filters), each with 2x2 max pooling, then layers of 120 and 84."""

    name: Literal["tutorial"] = "tutorial"
    normalization: Normalization = "none"
    """As in the other networks; the tutorial has none."""

    @property
    def filters(self) -> tuple[int, ...]:
        return (6, 16)


class LeNet(BlockNetwork):
    """A larger LeNet with dropout: two padded 5x5 convolutions (32 and 64 filters), each with 2x2 max
    pooling, then layers of 512 and 128. The sizes are ours."""

    name: Literal["lenet"] = "lenet"
    normalization: Normalization = "none"
    """As in the other networks; LeNet has none."""
    dropout: Rates = 0.25
    """Dropout rate of the last block, or a list with the rate of each; 0: none."""
    head_dropout: Rate = 0.5
    """Dropout rate after each fully connected layer; 0: none."""

    @property
    def filters(self) -> tuple[int, ...]:
        return (32, 64)


class ConvNet(BlockNetwork):
    """A small ConvNet: blocks of 3x3 convolutions without padding and 2x2 max pooling, then a hidden layer.
    By default 32-32-pool-64-64-pool-512, without normalization."""

    name: Literal["convnet"] = "convnet"
    widths: Widths = (32, 64)
    """Filters of each block; their number is the number of blocks."""
    convolutions: Annotated[int, Field(ge=1, le=8)] = 2
    """3x3 convolutions in each block, each of which takes two pixels off the maps' sides."""
    head: CountOrNone = 512
    """Units of the fully connected layer before the classifier; 0: no such layer."""
    normalization: Normalization = "none"
    """As in the other networks, but none by default."""

    @property
    def filters(self) -> tuple[int, ...]:
        return self.widths


class AlexNet(BlockNetwork):
    """AlexNet (Krizhevsky et al. 2012) for small images: its five convolutions in the widths of the later
    single-column version (Krizhevsky 2014: 64, 192, 384, 256, 256), the first 5x5 without stride instead of
    11x11 with stride 4, overlapping 3x3 max pooling with stride 2 after the first, second and fifth (the ends
    of three blocks), and two fully connected layers. The paper has dropout 0.5 in these (head_dropout), and
    local response normalization, which is left out."""

    name: Literal["alexnet"] = "alexnet"
    head: Count = 1024
    """Units of both fully connected layers (4,096 in the paper, for 1,000 classes)."""
    normalization: Normalization = "none"
    """As in the other networks, but none by default."""

    @property
    def filters(self) -> tuple[int, ...]:
        return (64, 192, 384, 256, 256)

    @property
    def blocks(self) -> int:
        return 3


class VGG(BlockNetwork):
    """VGG-style blocks (Simonyan and Zisserman 2015): 3x3 convolutions, then 2x2 max pooling, then a head;
    and each step from there towards a ResNet as a setting."""

    name: Literal["vgg"] = "vgg"
    widths: Widths = (32, 64, 128)
    """Filters of each block; their number is the number of blocks."""
    convolutions: Annotated[int, Field(ge=1, le=8)] = 2
    """3x3 convolutions in each block."""
    head: CountOrNone = 128
    """Units of the fully connected layer before the classifier; 0: no such layer."""
    pooling: Literal["max", "stride"] = "max"
    """How a block halves its maps. max: 2x2 max pooling at its end; stride: its last convolution has stride 2
    and there is no pooling (Springenberg et al. 2015, "strided")."""
    global_pooling: bool = False
    """Whether the mean of each feature map goes to the classifier (Lin et al. 2014), instead of all positions
    to a fully connected layer: head then has no effect."""
    skip: Literal["none", "identity-projection"] = "none"
    """identity-projection: each block's input is added before its last activation (He et al. 2016): as it is
    where shapes agree, else through a 1x1 convolution and normalization."""
    stem: Stem = "conv"
    """conv: the blocks take the image itself; patchify: a convolution over patches that do not overlap comes
    first (Dosovitskiy et al. 2021), so that all maps are smaller by patch_size."""
    patch_size: Patch = 2
    """Side of the patches of a patchify stem; must divide the image's sides."""

    @property
    def filters(self) -> tuple[int, ...]:
        return self.widths
