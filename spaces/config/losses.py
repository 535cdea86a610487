"""Losses. Their formulas are in ``search.training.losses``, under the same names."""

from __future__ import annotations

from typing import Literal

from spaces.config.section import Rate, Section


class CrossEntropy(Section):
    name: Literal["cross-entropy"] = "cross-entropy"
    label_smoothing: Rate = 0.0
    """Share of the target spread evenly over all classes (Szegedy et al. 2016); 0: none."""


Loss = CrossEntropy
