"""How long, in what batches and at which precision a network trains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.config.section import Section


class Training(Section):
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    """Images in a step. The last, partial batch of an epoch is left out."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on CUDA, fp32 on a CPU."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Early stopping: epochs without improvement after which training stops and returns to its best
    epoch; 0: off."""
    monitor: Literal["accuracy", "loss"] = "accuracy"
    """The validation figure that early stopping watches."""
