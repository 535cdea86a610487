"""Uniform draws, one for every image, that several techniques share.

Shape suffixes: B images of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw_uniform(n: int, low: float, high: float, device: torch.device) -> Tensor:
    """``n`` numbers uniform between low and high, float32."""
    return torch.rand(n, device=device) * (high - low) + low


def draw_chances(n: int, probability: float, device: torch.device) -> Tensor:
    """``n`` independent booleans, each true with the given probability: never for 0, always for 1."""
    return torch.rand(n, device=device) < probability


def draw_points(n: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Uniform pixel positions: rows in [0, height - 1] and columns in [0, width - 1], int64 of shape (n,)."""
    rows_B = torch.randint(0, height, (n,), device=device)
    columns_B = torch.randint(0, width, (n,), device=device)
    return rows_B, columns_B
