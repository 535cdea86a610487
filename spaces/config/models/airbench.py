"""The airbench network, the fast baseline."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.config.models.common import Activation, Momentum, Widths
from spaces.config.section import Positive, Section


class Airbench(Section):
    """The network of airbench94 (Jordan 2024, arXiv:2404.00498, section 3): a 2x2 whitening convolution
    without padding, then groups of convolution, max pooling, batch normalization without scale, activation,
    convolution, batch normalization and activation, global max pooling, and scaled logits."""

    name: Literal["airbench"] = "airbench"
    widths: Widths = (64, 256, 256)
    """Filters of each group; their number is the number of groups."""
    activation: Activation = "gelu"
    """The nonlinearity after the whitening and after every normalization."""
    batch_norm_momentum: Momentum = 0.4
    """Share of a batch's statistics in the running ones, at every step (the paper's 0.6 is what stays)."""
    bias_lr_factor: Positive = 64.0
    """How much faster the normalizations' biases learn (the paper's scalebias), by a factor inside the
    network: exact for SGD, its square root where steps are divided by the gradient's size. 1: no faster."""
    whitening: bool = True
    """Whether the first convolution whitens 2x2 patches, fixed from training images before training (only its
    bias learns); false: it starts at random and learns (section 3.2)."""
    whitening_bias_epochs: Annotated[int, Field(ge=0, le=100_000)] = 3
    """Epochs for which the whitening's bias learns (the paper's code: 3); then it is fixed, and gradients
    need not reach the first layer any more."""
    whitening_eps: Positive = 5e-4
    """Added to the patch covariance's eigenvalues before they are divided by, in squared units of the scaled
    images."""
    dirac: bool = True
    """Whether every later convolution starts as the identity on its first channels (section 3.3); false:
    PyTorch's initialization."""
    logit_scale: Positive = Field(default=1 / 9)
    """What the logits are multiplied by."""
