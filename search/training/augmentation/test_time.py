"""Test-time augmentation: the average of a network's logits over several views of each image.

The views, their weights and the averaging of logits rather than probabilities are those of airbench (Jordan
2024, arXiv 2404.00498, its published code): the image and its mirror image, each in place, a pixel up and to
the left, and a pixel down and to the right, with the border mirrored.

Shape suffixes: N images of the data set, B images of the batch, H height, W width, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from search.training.augmentation.gather import gather_moved
from search.training.augmentation.scaling import Scaling


class View(NamedTuple):
    """One way of looking at an image, and its share in the average."""

    mirrored: bool
    corner: int
    """Where its first pixel lies in the image, along both sides."""
    weight: float


VIEWS: dict[str, tuple[View, ...]] = {
    "mirror": (View(False, 0, 1 / 2), View(True, 0, 1 / 2)),
    "mirror-shift": (
        View(False, 0, 1 / 4),
        View(True, 0, 1 / 4),
        View(False, -1, 1 / 8),
        View(True, -1, 1 / 8),
        View(False, 1, 1 / 8),
        View(True, 1, 1 / 8),
    ),
}


def view_batch(images_all_NHWC: Tensor, indices_B: Tensor, view: View, scaling: Scaling) -> Tensor:
    """One view of the chosen images, scaled: float32 NCHW, channels_last in memory."""
    corners_B = torch.full_like(indices_B, view.corner)
    flips_B = torch.full_like(indices_B, view.mirrored, dtype=torch.bool)
    return scaling(
        gather_moved(
            images_all_NHWC,
            indices_B,
            corners=(corners_B, corners_B) if view.corner else None,
            flips_B=flips_B if view.mirrored else None,
            padding="reflect",
        )
    )


def averaged_logits(
    network: Callable[[Tensor], Tensor],
    images_all_NHWC: Tensor,
    indices_B: Tensor,
    kind: str,
    scaling: Scaling,
) -> Tensor:
    """logits_BK of the chosen images, averaged over the views of ``kind``, float32.

    Args:
        network: takes images_NCHW and returns logits_BK.
        kind: mirror or mirror-shift.
    """
    return torch.stack(
        [
            network(view_batch(images_all_NHWC, indices_B, view, scaling)).float() * view.weight
            for view in VIEWS[kind]
        ]
    ).sum(0)
