"""What a network predicts for clean images: by its logits, or by the votes of training images near to them.

Shapes: B images of a batch, N images, M some of them, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.training.augmentation.pipeline import plain_batch
from search.training.augmentation.scaling import Scaling
from search.training.contrastive import bank_indices, neighbour_votes
from search.training.features import features
from search.training.resident import ResidentData

BATCH = 500
"""Images looked at at a time: bounds memory and has no influence on the result."""

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From indices_B to predicted_B, the classes, and log_p_BK, the logarithms of all classes' probabilities."""


@dataclass(frozen=True)
class Evaluation:
    """The data's images as networks see them when they are judged: as they are, and in eval mode."""

    data: ResidentData
    scaling: Scaling
    autocast: torch.autocast

    def by_logits(self, network: nn.Module) -> Predict:
        """Predictions of a network's classifier."""

        def predict(indices_B: Tensor) -> tuple[Tensor, Tensor]:
            with self.autocast:
                logits_BK = network(plain_batch(self.data.images_NHWC, indices_B, self.scaling))
            return logits_BK.argmax(1), logits_BK.float().log_softmax(1)

        network.eval()
        return predict

    @torch.no_grad()
    def by_neighbours(self, network: nn.Module, neighbours: int) -> Predict:
        """Predictions by the training images whose features are nearest."""
        network.eval()
        bank_M = bank_indices(self.data.train_indices)
        bank_MF = torch.cat([self._features(network, chunk_B) for chunk_B in chunks(bank_M)])
        labels_M, classes = self.data.labels_N[bank_M], len(self.data.classes)
        return lambda indices_B: neighbour_votes(
            self._features(network, indices_B), bank_MF, labels_M, neighbours, classes
        )

    def _features(self, network: nn.Module, indices_B: Tensor) -> Tensor:
        with self.autocast:
            return features(network, plain_batch(self.data.images_NHWC, indices_B, self.scaling))

    @torch.no_grad()
    def validate(self, predict: Predict) -> Tensor:
        """Sums over the validation images: cross-entropy and correct predictions, float64 of shape (2,)."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.data.device)
        for indices_B in chunks(self.data.val_indices):
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
        for indices_B in chunks(self.data.val_indices):
            cells_B = self.data.labels_N.index_select(0, indices_B) * classes + predict(indices_B)[0]
            counts += torch.bincount(cells_B, minlength=classes * classes)
        return counts.view(classes, classes)

    @torch.no_grad()
    def agreement(self, predict: Predict, indices_M: Tensor, true_labels_N: Tensor) -> Tensor:
        """How many images are predicted as given, and how many as is true: float64 of shape (2,)."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.data.device)
        for indices_B in chunks(indices_M):
            predicted_B, _ = predict(indices_B)
            given = predicted_B == self.data.labels_N[indices_B]
            true = predicted_B == true_labels_N[indices_B]
            sums += torch.stack([given.double().sum(), true.double().sum()])
        return sums


def chunks(indices_M: Tensor) -> tuple[Tensor, ...]:
    """Indices in spans of at most ``BATCH``."""
    return torch.split(indices_M, BATCH) if len(indices_M) else ()
