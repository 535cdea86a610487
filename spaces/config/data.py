"""How pixels enter the network."""

from __future__ import annotations

from typing import Literal

from spaces.config.section import Section


class Data(Section):
    """How pixels enter the network."""

    scaling: Literal["unit", "standardize", "symmetric", "imagenet", "per-image"] = "standardize"
    """unit: [0, 1]; standardize: each channel to mean 0 and deviation 1 over the training images;
    symmetric: [-1, 1]; imagenet: by ImageNet's channel mean and deviation; per-image: each image to
    mean 0 and deviation 1 over its channels and positions."""
