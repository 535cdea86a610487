"""How long, in what batches and at which precision a network trains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.config.section import Rate, Section


class Training(Section):
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    """Images in a step. The last, partial batch of an epoch is left out."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on CUDA, fp32 on a CPU."""
    deterministic: bool = False
    """On CUDA, use only the deterministic algorithms of cuDNN, so that the same configuration, seed, device
    and versions give the same bits. What this costs has not been measured yet. Not covered are the gradients
    of adaptive pooling, and of max pooling whose windows overlap: on CUDA, PyTorch adds these up in no fixed
    order. No effect on a CPU, where the bits are always the same."""
    patience: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Early stopping: epochs without improvement after which training stops and returns to its best
    epoch; 0: off."""
    monitor: Literal["accuracy", "loss"] = "accuracy"
    """The validation figure that early stopping watches."""
    test_time_augmentation: Literal["none", "mirror", "mirror-shift"] = "none"
    """A second validation accuracy of the finished network, recorded beside the trial's value and never in
    its place, from logits averaged over several views of each image. mirror: the image and its mirror image;
    mirror-shift: these two (each with a weight of 1/4), and both moved by a pixel up and left, and down and
    right (1/8 each)."""
    ema: Rate = 0.0
    """Decay, at each step, of a running average of the weights (and of normalization's statistics), which is
    what validates and what the training returns; its half-life is ln 2 / -ln(decay) steps (0.99: 69, 0.999:
    693). At first the average is over fewer steps: decay min(ema, (1 + t) / (10 + t)) at step t. 0: off."""
    log_every: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Steps over which training loss and accuracy are averaged and kept, besides those of every epoch.
    Doubled as often as needed to keep at most 1,000 of them. 0: off."""
