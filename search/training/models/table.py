"""The table of networks, and the shape of data that each is built for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from search.training.registry import Registry


@dataclass(frozen=True)
class Shape:
    """What a network takes in and tells apart."""

    channels: int
    height: int
    width: int
    classes: int

    @property
    def side(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


models: Registry[Callable[..., nn.Module]] = Registry("model")
"""Builders: (configuration section, Shape) -> module from images_NCHW to logits_NK, with PyTorch's first
weights. The last ``nn.Linear`` of its ``modules()`` is its classifier."""


@runtime_checkable
class Prepared(Protocol):
    """A network that looks at training images before it is trained."""

    def prepare_on(self, images_NCHW: Tensor) -> None:
        """Fix what depends on the images, which are scaled and not augmented. Draws nothing."""


@runtime_checkable
class Freezing(Protocol):
    """A network of which a part stops learning before the end."""

    def freeze_before(self, epoch: int) -> bool:
        """Fix what does not learn in the epoch, counted from 0, or later; whether anything was fixed by this
        call. Called before every epoch."""


def require_side(what: str, shape: Shape, least: int) -> None:
    """Refuse images that a network is too deep for.

    Raises:
        ValueError: with the sizes.
    """
    if min(shape.side) < least:
        raise ValueError(
            f"{what} needs images with a side of at least {least}, but got images of "
            f"{shape.height}x{shape.width}"
        )
