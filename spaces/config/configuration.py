"""One training's complete settings: the sections put together."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError, model_validator

from spaces.config.augmentation import Augmentation
from spaces.config.data import Data
from spaces.config.losses import CrossEntropy, Loss, SupervisedContrastive
from spaces.config.models import VGG, Model, Network
from spaces.config.optimizers import SGD, Optimizer
from spaces.config.schedules import Cosine, Schedule
from spaces.config.section import Section
from spaces.config.training import Training
from spaces.problems import describe
from spaces.text import digest


class Configuration(Section):
    """One training's complete settings."""

    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    model: Model = VGG()
    optimizer: Optimizer = SGD()
    schedule: Schedule = Cosine()
    loss: Loss = CrossEntropy()
    training: Training = Training()

    @model_validator(mode="after")
    def _contrast_is_possible(self) -> Configuration:
        if not isinstance(self.loss, SupervisedContrastive):
            return self
        if self.training.epochs < 2:
            raise ValueError(
                "loss: supervised-contrastive has two parts and needs training.epochs of 2 or more, "
                f"but got {self.training.epochs}"
            )
        mixup, cutmix = self.augmentation.mixup, self.augmentation.cutmix
        if mixup or cutmix:
            raise ValueError(
                "loss: supervised-contrastive needs one class for each image, without augmentation.mixup and "
                f"cutmix, but got mixup={mixup}, cutmix={cutmix}"
            )
        return self

    @model_validator(mode="after")
    def _ghost_batches_have_images(self) -> Configuration:
        parts = self.model.ghost_batches if isinstance(self.model, Network) else 1
        if self.training.batch_size < 2 * parts:
            raise ValueError(
                "model.ghost_batches: each part of the batch needs two images or more, but got "
                f"ghost_batches={parts}, training.batch_size={self.training.batch_size}"
            )
        return self

    @classmethod
    def read(cls, tree: object, source: str = "configuration") -> Configuration:
        """Check a plain tree (as YAML gives it) and return the configuration.

        Raises:
            ValueError: naming the field's path, the rule and the value, in one line.
        """
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise ValueError(f"{source}: {first_problem(error)}") from None

    def tree(self) -> dict[str, Any]:
        """The configuration as plain dicts, lists and scalars: what YAML and JSON write."""
        return self.model_dump(mode="json")

    def fingerprint(self) -> str:
        """A short hash that two configurations share exactly when all their settings agree."""
        return digest(self.tree())


def first_problem(error: ValidationError) -> str:
    """The first problem of reading a configuration as one line: path, rule and value."""
    return describe(error, Configuration)
