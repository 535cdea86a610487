"""Rotation, change of size, shear and translation: one map and one resampling for every image.

Shape suffixes: B = N images of the batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from search.training.augmentation.draws import draw_symmetric, draw_uniform


class Affine(NamedTuple):
    """What happens to each image about its centre, in this order. A part that is None costs nothing."""

    slopes_x_B: Tensor | None = None
    """Shear along x: the tangent of its angle."""
    slopes_y_B: Tensor | None = None
    """Shear along y, likewise."""
    factors_B: Tensor | None = None
    """Change of size, above 0; 1 keeps it, 2 doubles it."""
    angles_B: Tensor | None = None
    """Rotation in degrees, clockwise."""
    right_B: Tensor | None = None
    """Translation in pixels."""
    down_B: Tensor | None = None


def affine(images_NCHW: Tensor, parts: Affine) -> Tensor:
    """Move each image, bilinearly, with 0 outside. Signs, centre and order are torchvision's ``affine``'s.

    Args:
        images_NCHW: floating point.
        parts: the amounts, of the images' type.

    Returns:
        images_NCHW: of the same shape and type.
    """
    grid_BHW2 = _grid(_inverse(parts), images_NCHW)
    return grid_sample(images_NCHW, grid_BHW2, mode="bilinear", padding_mode="zeros", align_corners=False)


class Ranges(NamedTuple):
    """How far each part is drawn; 0 leaves it out."""

    rotation: float = 0.0
    """Largest angle in degrees, either way."""
    scale: float = 0.0
    """Factors lie in [1 - scale, 1 + scale]."""
    shear: float = 0.0
    shear_y: float = 0.0
    """Largest angles in degrees, either way."""
    translation: float = 0.0
    """Largest share of the width and of the height, either way."""


def draw_affine(n: int, ranges: Ranges, height: int, width: int, device: torch.device) -> Affine:
    """``n`` maps with each part uniform in its range; a part whose range is 0 is None and draws nothing."""
    rotation, scale, shear, shear_y, translation = ranges
    return Affine(
        angles_B=draw_symmetric(n, rotation, device) if rotation else None,
        factors_B=draw_uniform(n, 1 - scale, 1 + scale, device) if scale else None,
        slopes_x_B=_slopes(draw_symmetric(n, shear, device)) if shear else None,
        slopes_y_B=_slopes(draw_symmetric(n, shear_y, device)) if shear_y else None,
        right_B=draw_symmetric(n, translation * width, device) if translation else None,
        down_B=draw_symmetric(n, translation * height, device) if translation else None,
    )


def random_affine(images_NCHW: Tensor, *, ranges: Ranges) -> Tensor:
    """Move each image by drawn amounts."""
    n, _, height, width = images_NCHW.shape
    moved_NCHW = affine(images_NCHW, draw_affine(n, ranges, height, width, images_NCHW.device))
    return moved_NCHW.contiguous(memory_format=torch.channels_last)


def _slopes(shears_B: Tensor) -> Tensor:
    return torch.tan(torch.deg2rad(shears_B))


class _Line(NamedTuple):
    """A coordinate of the input as x * column + y * row + one of the output, in pixels from the centre.

    An entry is a tensor of shape (B, 1, 1), or a number where it is the same for all images.
    """

    x: Tensor | float
    y: Tensor | float
    one: Tensor | float

    def times(self, factor: Tensor | float) -> _Line:
        return _Line(*(entry * factor for entry in self))

    def plus(self, other: _Line) -> _Line:
        return _Line(*(mine + its for mine, its in zip(self, other, strict=True)))


def _inverse(parts: Affine) -> tuple[_Line, _Line]:
    """From output to input positions: the parts undone one by one, the last one first.

    Forwards, a rotation is [[cos, -sin], [sin, cos]] and a shear along x is [[1, -slope], [0, 1]].
    """
    slopes_x, slopes_y, factors, angles, right, down = (
        0.0 if part_B is None else part_B[:, None, None] for part_B in parts
    )
    x, y = _Line(1.0, 0.0, -right), _Line(0.0, 1.0, -down)
    if isinstance(angles, Tensor):
        cosine, sine = torch.cos(torch.deg2rad(angles)), torch.sin(torch.deg2rad(angles))
        x, y = x.times(cosine).plus(y.times(sine)), y.times(cosine).plus(x.times(-sine))
    if isinstance(factors, Tensor):
        x, y = x.times(1 / factors), y.times(1 / factors)
    if isinstance(slopes_y, Tensor):
        y = y.plus(x.times(slopes_y))
    if isinstance(slopes_x, Tensor):
        x = x.plus(y.times(slopes_x))
    return x, y


def _grid(lines: tuple[_Line, _Line], images_NCHW: Tensor) -> Tensor:
    """Where each output pixel is sampled, in grid_sample's units: x and y of shape (B, H, W, 2).

    Written out rather than by ``affine_grid``, whose matrix product would lose digits to TF32 or autocast.
    """
    n, _, height, width = images_NCHW.shape
    columns_W = _centred(width, images_NCHW)
    rows_H1 = _centred(height, images_NCHW)[:, None]
    planes = [
        ((line.x * columns_W + line.y * rows_H1 + line.one) * (2 / side)).expand(n, height, width)
        for line, side in zip(lines, (width, height), strict=True)
    ]
    return torch.stack(planes, dim=1).permute(0, 2, 3, 1)


def _centred(side: int, like: Tensor) -> Tensor:
    """Pixel centres along a side, in pixels from the image's middle."""
    return torch.arange(side, dtype=like.dtype, device=like.device) - (side - 1) / 2
