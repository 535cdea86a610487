"""Losses. Their formulas are in ``search.training.losses``, under the same names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.config.section import Count, CountOrNone, NonNegative, Positive, Rate, Section


class CrossEntropy(Section):
    name: Literal["cross-entropy"] = "cross-entropy"
    label_smoothing: Rate = 0.0
    """Share of the target spread evenly over all classes (Szegedy et al. 2016); 0: none."""


class Focal(Section):
    """Cross-entropy that counts well classified images less (Lin et al. 2017)."""

    name: Literal["focal"] = "focal"
    gamma: NonNegative = 2.0
    """Each image's loss is multiplied by (1 - p) ** gamma, p the probability of its label;
    0: cross-entropy."""


class GeneralizedCrossEntropy(Section):
    """A bounded loss that withstands wrong labels (Zhang and Sabuncu 2018)."""

    name: Literal["generalized-cross-entropy"] = "generalized-cross-entropy"
    q: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    """Between cross-entropy (towards 0: learns fast, also what is wrong) and mean absolute error (1:
    withstands wrong labels, learns slowly)."""


class SupervisedContrastive(Section):
    """Features learnt by contrast (Khosla et al. 2020), then a classifier on them, in one training.

    In the first epochs two views of every image pass through the network and a projection, and images of one
    class are drawn together; these epochs report the accuracy of nearest neighbours among the features. In
    the others the features are frozen and a classifier learns on them by cross-entropy. The schedule runs
    once over each of the two.
    """

    name: Literal["supervised-contrastive"] = "supervised-contrastive"
    pretraining: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    """Share of the epochs that learn features; at least one epoch is left to each part."""
    temperature: Positive = 0.1
    """Divides the cosine similarities; the lower, the more the hardest pairs count."""
    projection: Count = 128
    """Outputs of the projection: one hidden layer as wide as the features, thrown away afterwards."""
    neighbours: Count = 10
    """Training images that vote on each validation image in the first part."""
    head: CountOrNone = 0
    """Hidden units of the classifier on the features; 0: a linear layer."""
    classifier_lr: NonNegative = 0.0
    """Learning rate of the classifier; 0: that of the optimizer."""

    def feature_epochs(self, epochs: int) -> int:
        """How many of ``epochs`` (2 or more) learn features."""
        return min(max(round(self.pretraining * epochs), 1), epochs - 1)


Loss = Annotated[
    CrossEntropy | Focal | GeneralizedCrossEntropy | SupervisedContrastive, Field(discriminator="name")
]
