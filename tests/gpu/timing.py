"""What trainings take on the device, one at a time or side by side, and which kernels a step consists of."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from setting import Setting
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from search.training.engine import Run
from search.training.reports import EpochReport
from search.training.resident import ResidentData
from spaces.config import Configuration

WARM = 2
"""Epochs before anything is timed: they capture the step, and then the validation."""
PROFILED = 8
"""Steps."""
LONGEST_NAME = 110
MOST_NAMES = 45

Figures = dict[str, Any]


@dataclass
class Trainings:
    """Runs of one configuration side by side, each on a lane of its own."""

    setting: Setting
    config: Configuration
    data: ResidentData
    lanes: int = 1
    graphs: bool = True
    slice: int | None = None
    """Steps that each run queues before the next one's turn; None: all of an epoch."""

    def __post_init__(self) -> None:
        self.lanes = min(self.lanes, self.setting.pick(self.lanes, 2))
        self.places = [self.setting.lane(self.graphs) for _ in range(self.lanes)]
        place = self.setting.device
        self.runs = [Run(self.config, self.data, place, seed, lane) for seed, lane in enumerate(self.places)]
        self.queueing: list[float] = []
        """Seconds of the host for each epoch."""

    def train(self) -> list[EpochReport]:
        """An epoch of each run."""
        begin = time.perf_counter()
        for run in self.runs:
            run.start_epoch()
        waiting = self.runs
        while waiting:
            waiting = [run for run in waiting if not run.queue(self.slice or self.steps)]
        self.queueing.append((time.perf_counter() - begin) / self.lanes)
        return [run.end_epoch() for run in self.runs]

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return len(self.data.train_indices) // self.config.training.batch_size

    @property
    def eager(self) -> str:
        """Why the first of those runs that were not captured was not; empty if all were."""
        return next((run.eager for run in self.runs if run.eager), "")

    def wait(self) -> None:
        for lane in self.places:
            lane.wait()

    def weights(self) -> torch.Tensor:
        """Of the first run, on the host."""
        parameters = self.runs[0].network.parameters()
        return torch.cat([parameter.detach().float().flatten() for parameter in parameters]).cpu()


def timed(
    setting: Setting, config: Configuration, data: ResidentData, epochs: int = 4, **how: Any
) -> Figures:
    """Seconds of an epoch in the steady state; ``how``: lanes, graphs and slice of ``Trainings``."""
    forget()
    begin = time.perf_counter()
    trainings = Trainings(setting, config, data, **how)
    trainings.train()
    first = time.perf_counter() - begin
    for _ in range(1, WARM):
        trainings.train()
    trainings.wait()
    begin = time.perf_counter()
    reports = [trainings.train() for _ in range(setting.pick(epochs, 1))]
    trainings.wait()
    wall = (time.perf_counter() - begin) / len(reports)
    return {"first_epoch_with_build": first, **figures(trainings, wall, [each[0] for each in reports])}


def figures(trainings: Trainings, wall: float, reports: list[EpochReport]) -> Figures:
    """From the seconds of an epoch of all runs, and the reports of the first one."""
    images = trainings.steps * trainings.config.training.batch_size
    return {
        "epoch_wall": wall,
        "per_trial_epoch": wall / trainings.lanes,
        "device_epoch": statistics.median(report.seconds for report in reports),
        "images_per_second_all_lanes": trainings.lanes * images / wall,
        "ms_per_step_one_lane": 1e3 * images / reports[-1].images_per_second / trainings.steps,
        "host_queue_ms": 1e3 * statistics.median(trainings.queueing[WARM:]),
        "val_accuracy": reports[-1].val_accuracy,
        "eager": trainings.eager,
        "steps": trainings.steps,
        "peak_gib": torch.cuda.max_memory_reserved() / 2**30,
    }


def forget() -> None:
    """Give back what earlier trainings held, so that the next one's memory is its own."""
    gc.collect()
    torch.cuda.empty_cache()
    _ = torch.cuda.is_available() and torch.cuda.reset_peak_memory_stats()


def same_bits(setting: Setting, config: Configuration, data: ResidentData) -> Figures:
    """Whether two captured trainings of one seed, and an eager one, come to the same weights."""
    (one, why_eager), (again, _), (eager, _) = (
        weights_after(setting, config, data, graphs) for graphs in (True, True, False)
    )
    return {
        "same_bits": torch.equal(one, again),
        "largest_difference": (one - again).abs().max().item(),
        "same_bits_eager": torch.equal(one, eager),
        "largest_difference_eager": (one - eager).abs().max().item(),
        "eager": why_eager,
    }


def weights_after(
    setting: Setting, config: Configuration, data: ResidentData, graphs: bool
) -> tuple[torch.Tensor, str]:
    """Of a short training, and why it was not captured."""
    trainings = Trainings(setting, config, data, graphs=graphs)
    for _ in range(WARM + 1):
        trainings.train()
    return trainings.weights(), trainings.eager


def bias_epochs(setting: Setting, config: Configuration, data: ResidentData) -> Figures:
    """Seconds of the epochs in which the whitening's bias learns, and of those after it is fixed."""
    trainings = Trainings(setting, config, data)
    seconds = [trainings.train()[0].seconds for _ in range(2 * trainings.config.model.whitening_bias_epochs)]
    learning, fixed = seconds[: len(seconds) // 2], seconds[len(seconds) // 2 :]
    return {  # the first epoch of each captures
        "learning": statistics.median(learning[1:]),
        "fixed": statistics.median(fixed[1:]),
        "all": seconds,
        "eager": trainings.eager,
    }


def kernels(setting: Setting, config: Configuration, data: ResidentData) -> Figures:
    """How many kernels a step has and what each takes, by name: replayed, and launched one by one."""
    found = {
        name: kernels_of(setting, Trainings(setting, config, data, graphs=graphs))
        for name, graphs in (("replayed", True), ("launched", False))
    }
    return {**found, "eager": found["replayed"]["eager"]}


def kernels_of(setting: Setting, trainings: Trainings) -> Figures:
    """Of ordinary steps in the steady state."""
    for _ in range(WARM):
        trainings.train()
    (run,), steps = trainings.runs, min(PROFILED, trainings.steps - 1)
    run.start_epoch()
    trainings.wait()
    with profile(activities=[setting.pick(ProfilerActivity.CUDA, ProfilerActivity.CPU)]) as profiled:
        run.queue(steps)
        trainings.wait()
    run.queue(trainings.steps)
    run.end_epoch()
    place = setting.pick(DeviceType.CUDA, DeviceType.CPU)
    events = [event for event in profiled.key_averages() if event.device_type == place]
    microseconds = setting.pick("self_device_time_total", "self_cpu_time_total")
    rows = [
        (event.key[:LONGEST_NAME], event.count / steps, getattr(event, microseconds) / steps)
        for event in events
    ]
    rows.sort(key=lambda row: -row[2])
    total = {"kernels": sum(row[1] for row in rows), "us": sum(row[2] for row in rows)}
    return total | {"eager": run.eager, "rows": rows[:MOST_NAMES]}
