"""What a network predicts for clean images: by its logits, or by the votes of training images near to them.

Shapes: B images of a batch, N images, M some of them, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search.training.augmentation.pipeline import plain_batch
from search.training.augmentation.scaling import Scaling
from search.training.contrastive import bank_indices, neighbour_votes
from search.training.features import bare_network
from search.training.models import Shape, largest_layer
from search.training.resident import ResidentData
from spaces.config import Configuration

BATCH = 500
"""Images evaluated at a time on a CPU: bounds memory, and changes no result but for its last bits."""
GPU_BATCH = 2500
"""The same on a GPU, which such batches keep busy, where a layer's values fit into ``GPU_MEMORY``."""
GPU_MEMORY = 2**30
"""Bytes. A number rather than what is free, so that a training is the same beside others."""

Network = Callable[[Tensor], Tensor]
"""From images_BCHW to logits_BK."""
Predict = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From indices_B to predicted_B, the classes, and log_p_BK, the logarithms of all classes' probabilities."""


@dataclass(frozen=True)
class Evaluation:
    """The data's images as networks see them when they are judged: as they are, and in eval mode."""

    data: ResidentData
    scaling: Scaling
    autocast: torch.autocast
    batch: int = BATCH
    """Images at a time: of ``batch_for``."""

    def by_logits(self, network: Network) -> Predict:
        """Predictions of a network's classifier; the network is in eval mode."""

        def predict(indices_B: Tensor) -> tuple[Tensor, Tensor]:
            with self.autocast:
                logits_BK = network(plain_batch(self.data.images_NHWC, indices_B, self.scaling))
            return logits_BK.argmax(1), logits_BK.float().log_softmax(1)

        return predict

    @torch.no_grad()
    def by_neighbours(self, features_of: Network, neighbours: int) -> Predict:
        """Predictions by the training images whose features are nearest; ``features_of`` takes images_BCHW to
        features_BF."""
        bank_M = bank_indices(self.data.train_indices)
        bank_MF = torch.cat([self._features(features_of, chunk_B) for chunk_B in self.chunks(bank_M)])
        labels_M, classes = self.data.labels_N[bank_M], len(self.data.classes)
        return lambda indices_B: neighbour_votes(
            self._features(features_of, indices_B), bank_MF, labels_M, neighbours, classes
        )

    def _features(self, features_of: Network, indices_B: Tensor) -> Tensor:
        with self.autocast:
            return features_of(plain_batch(self.data.images_NHWC, indices_B, self.scaling))

    @torch.no_grad()
    def validate(self, predict: Predict) -> Tensor:
        """Sums over the validation images: cross-entropy and correct predictions, float64 of shape (2,)."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.data.device)
        for indices_B in self.chunks(self.data.val_indices):
            labels_B = self.data.labels_N.index_select(0, indices_B)
            predicted_B, log_p_BK = predict(indices_B)
            losses_B = F.nll_loss(log_p_BK, labels_B, reduction="none").double()
            sums += torch.stack([losses_B.sum(), (predicted_B == labels_B).double().sum()])
        return sums

    @torch.no_grad()
    def confusion(self, predict: Predict) -> Tensor:
        """Validation images by true class (rows) and predicted class: int64 of shape (K, K)."""
        classes = len(self.data.classes)
        counts = torch.zeros(classes * classes, dtype=torch.int64, device=self.data.device)
        for indices_B in self.chunks(self.data.val_indices):
            cells_B = self.data.labels_N.index_select(0, indices_B) * classes + predict(indices_B)[0]
            counts += torch.bincount(cells_B, minlength=classes * classes)
        return counts.view(classes, classes)

    @torch.no_grad()
    def agreement(self, predict: Predict, indices_M: Tensor, true_labels_N: Tensor) -> Tensor:
        """How many images are predicted as given, and how many as is true: float64 of shape (2,)."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.data.device)
        for indices_B in self.chunks(indices_M):
            predicted_B, _ = predict(indices_B)
            given = predicted_B == self.data.labels_N[indices_B]
            true = predicted_B == true_labels_N[indices_B]
            sums += torch.stack([given.double().sum(), true.double().sum()])
        return sums

    def chunks(self, indices_M: Tensor) -> tuple[Tensor, ...]:
        """Indices in spans of at most ``batch``."""
        return torch.split(indices_M, self.batch) if len(indices_M) else ()


def batch_for(config: Configuration, shape: Shape, device: torch.device) -> int:
    """How many images of ``shape`` the configuration's network evaluates at a time on a device."""
    if device.type == "cpu":
        return BATCH
    bytes_of_image = 4 * largest_layer(lambda: bare_network(config, shape), shape)
    return max(1, min(GPU_BATCH, GPU_MEMORY // bytes_of_image))
