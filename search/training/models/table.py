"""The table of networks, and the shape of data that each is built for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from search.training.registry import Registry


@dataclass(frozen=True)
class Shape:
    """What a network takes in and tells apart."""

    channels: int
    height: int
    width: int
    classes: int


models: Registry[Callable[..., nn.Module]] = Registry("model")
"""Builders: (configuration section, Shape) -> module from images_NCHW to logits_NK."""
