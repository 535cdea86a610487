"""Learning-rate schedules. Their formulas are in ``search.training.schedules``, under the same names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from spaces.config.section import Rate, Section, Share, as_tuple


class _Schedule(Section):
    warmup: Rate = 0.0
    """Share of the run in which the learning rate first rises linearly from nearly 0; 0: none."""
    per: Literal["step", "epoch"] = "step"
    """Whether the rate changes at every step, or only between epochs."""


class Constant(_Schedule):
    name: Literal["constant"] = "constant"


class Step(_Schedule):
    """The rate is multiplied by gamma at each milestone."""

    name: Literal["step"] = "step"
    milestones: Annotated[tuple[Share, ...], Field(min_length=1), BeforeValidator(as_tuple)] = (0.5, 0.75)
    """Shares of the run, rising."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1

    @model_validator(mode="after")
    def _rising(self) -> Step:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, but got {self.milestones}")
        return self


class Cosine(_Schedule):
    """Half a cosine from the full rate down to final (Loshchilov and Hutter 2017)."""

    name: Literal["cosine"] = "cosine"
    final: Share = 0.0
    """The last rate, as a share of the full one."""


class Polynomial(_Schedule):
    """From the full rate down to final along (1 - t) ** power."""

    name: Literal["polynomial"] = "polynomial"
    power: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    """1: a straight line; above, fast at first; below, fast at the end."""
    final: Share = 0.0
    """The last rate, as a share of the full one."""


class CosineRestarts(_Schedule):
    """SGDR (Loshchilov and Hutter 2017): cosine annealing that starts again, each time for longer."""

    name: Literal["cosine-restarts"] = "cosine-restarts"
    cycles: Annotated[int, Field(ge=1, le=20)] = 3
    growth: Annotated[float, Field(ge=1.0, le=10.0)] = 2.0
    """How many times as long each cycle is as the one before."""
    final: Share = 0.0
    """The rate at the end of a cycle, as a share of the full one."""


class OneCycle(_Schedule):
    """Smith and Topin 2018: up to the full rate and far down again, both by half cosines. Only the learning
    rate cycles; momentum stays as it is."""

    name: Literal["one-cycle"] = "one-cycle"
    peak: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """Share of the run at which the full rate is reached."""
    start: Share = 0.04
    """The first rate, as a share of the full one. 0: the first step, or epoch, has the rate of its middle."""
    final: Share = 4e-6
    """The last rate, as a share of the full one."""


class Triangular(_Schedule):
    """Straight up to the full rate and straight down again (Smith 2017)."""

    name: Literal["triangular"] = "triangular"
    peak: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Share of the run at which the full rate is reached."""
    start: Share = 0.0
    """The first rate, as a share of the full one. 0: the first step, or epoch, has the rate of its middle."""
    final: Share = 0.0
    """The last rate, as a share of the full one."""


Schedule = Annotated[
    Constant | Step | Cosine | Polynomial | CosineRestarts | OneCycle | Triangular,
    Field(discriminator="name"),
]
