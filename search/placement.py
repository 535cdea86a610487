"""Where a command trains its trials: how many processes, on which devices, how many side by side on a GPU."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.training.models import Shape
    from spaces.config import Configuration

BUSY = 120e9
"""Floating-point operations of a training step that keep a large GPU busy: about those of the three-block VGG
(32, 64 and 128 filters) with 512 images. An estimate from the arithmetic of an H200."""
MOST = 8
"""Trials that "auto" puts on one GPU at most."""


@dataclass(frozen=True)
class Resources:
    """What a command may use, as asked for."""

    device: str = "auto"
    workers: int | None = None
    """Processes; None: one for each core of a CPU, or for each GPU. 0: none, for a study that others join."""
    per_gpu: int | None = None
    """Trials that a worker trains side by side; None: by the work of a step."""
    graphs: bool = True
    """Whether steps on a GPU are captured in CUDA graphs."""


@dataclass(frozen=True)
class Placement:
    """What a command uses."""

    devices: tuple[str, ...]
    """Workers take them in turn."""
    workers: int
    per_gpu: int = 1
    graphs: bool = True
    rule: str = ""
    """How ``per_gpu`` was chosen, in a line; empty where it was not."""

    @property
    def parallel(self) -> int:
        """Trials that are trained at once."""
        return self.workers * self.per_gpu

    @property
    def ahead(self) -> int:
        """Slots that a worker draws before it has a place for them, so that a GPU does not wait for the
        sampler. Fixed, since what a sampler knows when it draws decides what it draws."""
        return 0 if self.on_cpu else 1

    @property
    def on_cpu(self) -> bool:
        return self.devices == ("cpu",)

    def device_of(self, worker: int) -> str:
        """The device of a worker by its number, from 0."""
        return self.devices[worker % len(self.devices)]

    def for_slots(self, owed: int | None) -> Placement:
        """The same for a study that owes so many slots: no more places than slots."""
        if owed is None or not self.workers:
            return self
        workers = max(1, min(self.workers, owed))
        return replace(self, workers=workers, per_gpu=max(1, min(self.per_gpu, math.ceil(owed / workers))))

    def text(self) -> str:
        """In words."""
        words = f"{self.workers} worker(s) on {', '.join(self.devices[: self.workers])}"
        if not self.workers:
            return "no worker here"
        return words if self.per_gpu == 1 else f"{words}, {self.per_gpu} trials side by side each"


ANYTHING = Resources()
"""Whatever there is."""


def processes_on(device_type: str) -> int:
    """How many processes one device carries by itself: one for each core of a CPU, one on a GPU."""
    return len(os.sched_getaffinity(0)) if device_type == "cpu" else 1


def place(resources: Resources, configuration: Configuration, shape: Shape) -> Placement:
    """Decide where trainings like that of ``configuration`` run.

    Raises:
        ValueError: if there is no such device, or several trials are to share a CPU's worker.
    """
    from search.prepare import resolve_devices

    devices = tuple(str(device) for device in resolve_devices(resources.device))
    workers = processes_on("cpu") if devices == ("cpu",) else len(devices)
    workers = workers if resources.workers is None else resources.workers
    return place_on(devices, workers, len(devices), resources, configuration, shape)


def place_on(
    devices: tuple[str, ...],
    workers: int,
    gpus: float,
    resources: Resources,
    configuration: Configuration,
    shape: Shape,
) -> Placement:
    """As ``place``, for so many workers on devices and a number of GPUs that are known."""
    if devices == ("cpu",):
        if resources.per_gpu not in (None, 1):
            raise ValueError(
                f"--per-gpu: must be 1 or auto on a CPU, where --workers says how many trials run at once, "
                f"but got {resources.per_gpu}"
            )
        return Placement(devices, workers)
    placement = Placement(devices, workers, resources.per_gpu or 1, resources.graphs)
    if resources.per_gpu is None:
        per_gpu, rule = _side_by_side(workers, gpus, _work_of_step(configuration, shape))
        placement = replace(placement, per_gpu=per_gpu, rule=rule)
    return placement


def _side_by_side(workers: int, gpus: float, work: float) -> tuple[int, str]:
    """How many trials a worker trains at once, and why. A rule of numbers that a study keeps, and not of
    measured speed, so that a search with the same seed stays the same."""
    if workers > gpus:
        return 1, "1 trial in each worker (auto: GPUs are shared by workers already)"
    number = min(MOST, max(1, math.ceil(BUSY / work)))
    rule = (
        f"{number} trial(s) side by side on a GPU (auto: a step is {work / 1e9:.3g} GFLOP, about "
        f"{BUSY / 1e9:.0f} keep a large GPU busy, at most {MOST}; --per-gpu N sets another number)"
    )
    return number, rule


def _work_of_step(configuration: Configuration, shape: Shape) -> float:
    """Floating-point operations of a training step: forward, and twice as much backward."""
    from search.training.features import network_cost

    return 6.0 * network_cost(configuration, shape).multiply_adds * configuration.training.batch_size
