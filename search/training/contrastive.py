"""Features learnt by supervised contrast (Khosla et al. 2020, arXiv:2004.11362), and judged by neighbours.

Shapes: B images of a batch, V views (2 B in training), F features, P outputs of the projection, M images of
the bank of neighbours, K classes, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.training.features import classifier_of, feature_count
from spaces import config

BANK = 5000
"""At most so many training images can be neighbours of a validation image."""


class Projection(nn.Sequential):
    """From features to the points on the unit sphere that are contrasted; thrown away afterwards."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__(nn.Linear(features, features), nn.ReLU(inplace=True), nn.Linear(features, outputs))

    def forward(self, features_VF: Tensor) -> Tensor:
        """Points_VP of length 1, float32."""
        points_VP = features_VF
        for layer in self:
            points_VP = layer(points_VP)
        return F.normalize(points_VP.float(), dim=1)


def build_projection(loss: config.SupervisedContrastive, network: nn.Module) -> Projection:
    """The projection of a network's features, initialized from the default CPU generator."""
    return Projection(feature_count(classifier_of(network)), loss.projection)


def contrast(points_VP: Tensor, labels_V: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Each view's loss L_out (equation 2), and whether the view nearest to it is of its class, both (V,).

    -1 / |P(i)| * sum over p in P(i) of log(exp(z_i z_p / T) / sum over a != i of exp(z_i z_a / T)), where
    P(i) are the other views of i's class, the second view of its own image among them. For the nearest view,
    that one is left out: views v and v + V / 2 are of one image.
    """
    similarity_VV = points_VP @ points_VP.T
    views = torch.arange(len(points_VP), device=points_VP.device)
    itself_VV = views[:, None] == views[None, :]
    same_class_VV = labels_V[:, None] == labels_V[None, :]
    log_share_VV = (similarity_VV / temperature).masked_fill(itself_VV, float("-inf")).log_softmax(1)
    positive_VV = same_class_VV & ~itself_VV
    total_V = torch.where(positive_VV, log_share_VV, 0.0).sum(1)
    own_image_VV = (views[:, None] - views[None, :]) % (len(points_VP) // 2) == 0
    nearest_V = similarity_VV.masked_fill(own_image_VV, float("-inf")).argmax(1)
    return -total_V / positive_VV.sum(1).clamp(min=1), labels_V[nearest_V] == labels_V


def neighbour_votes(
    features_BF: Tensor, bank_MF: Tensor, bank_labels_M: Tensor, neighbours: int, classes: int
) -> tuple[Tensor, Tensor]:
    """What the nearest images of the bank, by cosine similarity, say of each image.

    Returns:
        predicted_B: the class with most of the min(neighbours, M) votes; of several, the one whose votes are
            nearer in sum. And log_shares_BK: logarithms of the shares of votes, with one more vote spread
            over all classes, so that they are finite.
    """
    similarity_BM = F.normalize(features_BF.float(), dim=1) @ F.normalize(bank_MF.float(), dim=1).T
    nearest_Bk, who_Bk = similarity_BM.topk(min(neighbours, len(bank_MF)), dim=1)
    votes_BkK = F.one_hot(bank_labels_M[who_Bk], classes).float()
    votes_BK = votes_BkK.sum(1)
    count = votes_BkK.shape[1]
    nearness_BK = (votes_BkK * nearest_Bk[:, :, None]).sum(1)  # at most count in size: less than half a vote
    predicted_B = (votes_BK + nearness_BK / (4 * count)).argmax(1)
    return predicted_B, ((votes_BK + 1 / classes) / (count + 1)).log()


def bank_indices(train_indices: Tensor) -> Tensor:
    """Up to ``BANK`` of the training images, spread evenly, so that data sorted by class give all classes."""
    count = min(len(train_indices), BANK)
    spread = torch.arange(count, device=train_indices.device) * len(train_indices) // count
    return train_indices[spread]
