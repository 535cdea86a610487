"""Losses over logits_BK and target probabilities_BK (B images of a batch, K classes).

Targets are probabilities because MixUp and CutMix blend them; a hard label is a row with a single 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
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


@losses.register("focal")
def focal(loss: config.Focal, logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """-sum_k q_k (1 - p_k)^gamma log p_k (Lin et al. 2017, arXiv:1708.02002, equation 4, for each label)."""
    log_p_BK = F.log_softmax(logits_BK, 1)
    # below a power of 1, the slope at p = 1 would be infinite
    others_BK = (-torch.expm1(log_p_BK)).clamp(min=1e-12)
    return -(targets_BK * others_BK**loss.gamma * log_p_BK).sum(1)


@losses.register("generalized-cross-entropy")
def generalized_cross_entropy(
    loss: config.GeneralizedCrossEntropy, logits_BK: Tensor, targets_BK: Tensor
) -> Tensor:
    """sum_k q_k (1 - p_k^q) / q (Zhang and Sabuncu 2018, arXiv:1805.07836, equation 6, for each label)."""
    log_p_BK = F.log_softmax(logits_BK, 1)
    return -(targets_BK * torch.expm1(loss.q * log_p_BK)).sum(1) / loss.q


@losses.register("supervised-contrastive")
def classifier_after_contrast(
    loss: config.SupervisedContrastive,
    logits_BK: Tensor,
    targets_BK: Tensor,
) -> Tensor:
    """Plain cross-entropy: the loss of its second part. The first one's is in ``contrastive``."""
    return F.cross_entropy(logits_BK, targets_BK, reduction="none")
