"""Losses over logits_BK and target probabilities_BK (B images of a batch, K classes).

Targets are probabilities because MixUp and CutMix blend them; a hard label is a row with a single 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from search.training.registry import Registry
from spaces import config

losses: Registry[Callable[..., Tensor]] = Registry("loss")
"""Functions (configuration section, logits_BK, targets_BK) -> losses_B."""


def training_loss(loss: config.Loss, logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Each image's training loss, shape (B,), in float32."""
    return losses[loss.name](loss, logits_BK.float(), targets_BK)


@losses.register("cross-entropy")
def cross_entropy(loss: config.CrossEntropy, logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """-sum_k q_k log p_k with q = (1 - s) * target + s / K (Szegedy et al. 2016, section 7)."""
    return F.cross_entropy(logits_BK, targets_BK, label_smoothing=loss.label_smoothing, reduction="none")
