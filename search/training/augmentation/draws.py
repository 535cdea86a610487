"""Uniform draws, one for every image, that several techniques share.

Shape suffixes: B images of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw_uniform(n: int, low: float, high: float, device: torch.device) -> Tensor:
    """``n`` numbers uniform between low and high, float32."""
    return torch.rand(n, device=device) * (high - low) + low


def draw_symmetric(n: int, largest: float, device: torch.device) -> Tensor:
    """``n`` numbers uniform between -largest and largest, float32."""
    return draw_uniform(n, -largest, largest, device)


def draw_chances(n: int, probability: float, device: torch.device) -> Tensor:
    """``n`` independent booleans, each true with the given probability: never for 0, always for 1."""
    return torch.rand(n, device=device) < probability


def draw_factors(n: int, strength: float, probability: float, device: torch.device) -> Tensor:
    """``n`` factors uniform in [max(0, 1 - strength), 1 + strength]; 1 for the images that are not drawn."""
    factors_B = draw_uniform(n, max(0.0, 1 - strength), 1 + strength, device)
    if probability == 1:
        return factors_B
    return torch.where(draw_chances(n, probability, device), factors_B, 1.0)


def draw_points(n: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Uniform pixel positions: rows in [0, height - 1] and columns in [0, width - 1], int64 of shape (n,)."""
    rows_B = torch.randint(0, height, (n,), device=device)
    columns_B = torch.randint(0, width, (n,), device=device)
    return rows_B, columns_B
