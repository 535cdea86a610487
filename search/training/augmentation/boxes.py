"""Axis-parallel rectangles of pixels, one for every image: what cutout, erasing and CutMix act on.

Shape suffixes: B images of the batch, H height, W width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Boxes(NamedTuple):
    """One rectangle for every image, in pixels, int64; what reaches beyond the image is cut off."""

    tops_B: Tensor
    lefts_B: Tensor
    heights_B: Tensor
    widths_B: Tensor

    @classmethod
    def centred(cls, rows_B: Tensor, columns_B: Tensor, heights_B: Tensor, widths_B: Tensor) -> Boxes:
        """Rectangles about pixels; an even side reaches one pixel further up or left than down or right."""
        return cls(rows_B - heights_B // 2, columns_B - widths_B // 2, heights_B, widths_B)

    def mask(self, height: int, width: int) -> Tensor:
        """Which pixels of an image lie inside: boolean of shape (B, 1, H, W)."""
        rows_BH = torch.arange(height, device=self.tops_B.device) - self.tops_B[:, None]
        columns_BW = torch.arange(width, device=self.tops_B.device) - self.lefts_B[:, None]
        rows_inside_BH = (rows_BH >= 0) & (rows_BH < self.heights_B[:, None])
        columns_inside_BW = (columns_BW >= 0) & (columns_BW < self.widths_B[:, None])
        return rows_inside_BH[:, None, :, None] & columns_inside_BW[:, None, None, :]
