"""Where the time of a trial goes: the phases of a step, and the operators that take most of it.

    python tests/benchmarks/profile_trial.py [--images FOLDER|cifar10] [--output FILE.json]

Trains epochs of the three-block VGG of ``throughput.py`` with ``search.training.engine.Run``, each after two
that warm up: an epoch that is only timed, one whose phases are timed, and one under torch.profiler. On CUDA
the phases are those of steps run without graphs, each phase waited for, so that they add up to more than an
epoch of a search takes; the other epochs are as a search trains them. Cost: under a minute on two cores.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from bench_data import Arrays, prepare, resident
from ours_runs import synchronize
from recording import HERE, RESULTS, Table, load, publish, store
from throughput_options import DEFAULTS, Defaults
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from search.training.augmentation.pipeline import Augmenter
from search.training.engine import Run
from search.training.evaluation import Evaluation
from search.training.lanes import make_lane
from search.training.resident import ResidentData
from spaces.config import Configuration

WARM_UP_EPOCHS = 2
"""Steps are captured in the first epoch; a validation, which an epoch has one of, in the second."""
SHOWN = 15
"""Operators in the table."""
LONGEST_NAME = 70


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    usual = DEFAULTS[device.type]
    arguments = parse(usual)
    torch.set_num_threads(1)  # as a worker has
    with tempfile.TemporaryDirectory() as folder:
        about = prepare(arguments.images, arguments.size, arguments.val_size, Path(folder))
        data = resident(Arrays.read(Path(folder)), device)
    tree = yaml.safe_load((HERE / "three-block-vgg.yaml").read_text(encoding="utf-8"))["base"]
    batch_size = min(usual.batch_size, about["train_images"])
    tree["training"] = {"epochs": WARM_UP_EPOCHS + 1, "batch_size": batch_size}
    configuration = Configuration.read(tree)
    del about["dataset"]
    settings = about | {"device": device.type, "batch_size": batch_size, "load_before": load()}
    figures = {
        "epoch_seconds": epoch_seconds(configuration, data),
        **operators(configuration, data),
        "phases": phases(configuration, data),  # last: what it wraps stays wrapped
    }
    name = f"profile_trial-{device.type}"
    path = store(name, arguments.output or RESULTS / f"{name}.json", settings, figures)
    tables = [phases_table(figures, settings), operators_table(figures)]
    for table in tables:
        table.show()
    publish(name, tables, path)
    print(f"stored in {path}")


def parse(usual: Defaults, words: Sequence[str] | None = None) -> argparse.Namespace:
    """``words`` None: on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--images", default=usual.images, help=f"as for throughput.py; default here: {usual.images}")
    add("--size", type=int, default=usual.size, help=f"training images (here {usual.size or 'all'})")
    add("--val-size", type=int, default=usual.val_size, help=f"(here {usual.val_size or 'a tenth'})")
    add("--output", type=Path, help="JSON file (default: results/profile_trial-DEVICE.json)")
    return parser.parse_args(words)


def warm_run(configuration: Configuration, data: ResidentData, graphs: bool = True) -> Run:
    """A run whose next epoch is like all later ones."""
    run = Run(configuration, data, data.device, 0, make_lane(data.device, graphs))
    for _ in range(WARM_UP_EPOCHS):
        run.train_epoch()
    return run


def epoch_seconds(configuration: Configuration, data: ResidentData) -> dict[str, float]:
    """An epoch as a search trains it: training and validation together, and training alone."""
    run = warm_run(configuration, data)
    report = run.train_epoch()
    batch = configuration.training.batch_size
    images = len(data.train_indices) // batch * batch
    return {"all": report.seconds, "training": images / report.images_per_second}


class Phases:
    """Seconds of functions that are wrapped where they are looked up; nested in others, none."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device
        self._inside = False

    def wrap(self, owner: Any, name: str, label: str) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            if self._inside:
                return function(*arguments, **keywords)
            self._inside = True
            synchronize(self._device)
            start = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                synchronize(self._device)
                self.seconds[label] += time.perf_counter() - start
                self._inside = False

        setattr(owner, name, timed)


def phases(configuration: Configuration, data: ResidentData) -> dict[str, float]:
    """Seconds of an epoch without graphs, by what they were spent on."""
    run = warm_run(configuration, data, graphs=False)
    clock = Phases(data.device)
    clock.wrap(Augmenter, "__call__", "augmentation, with the batch's selection")
    clock.wrap(run.network, "forward", "forward")
    clock.wrap(torch.Tensor, "backward", "backward")
    clock.wrap(torch.optim.SGD, "step", "optimizer")
    clock.wrap(Evaluation, "validate", "validation")
    synchronize(data.device)
    start = time.perf_counter()
    run.train_epoch()
    whole = time.perf_counter() - start
    return dict(clock.seconds) | {"loss, metrics, order, host": whole - sum(clock.seconds.values())}


def operators(configuration: Configuration, data: ResidentData) -> dict[str, Any]:
    """By torch.profiler: what takes most time itself, kernels on CUDA, and how long all of it took."""
    cuda = data.device.type == "cuda"
    run = warm_run(configuration, data)
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        start = time.perf_counter()
        run.train_epoch()
        whole = time.perf_counter() - start
    kind = DeviceType.CUDA if cuda else DeviceType.CPU
    rows = [
        {
            "name": event.key,
            "calls": event.count,
            "seconds": (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6,
        }
        for event in profiler.key_averages()
        if event.device_type == kind and not event.is_user_annotation
    ]
    rows.sort(key=lambda row: -row["seconds"])
    computing = sum(row["seconds"] for row in rows)
    return {"profiled_seconds": whole, "computing_seconds": computing, "operators": rows[:SHOWN]}


def phases_table(figures: dict[str, Any], settings: dict[str, Any]) -> Table:
    """Where an epoch's time goes, and what an epoch of a search takes."""
    whole = sum(figures["phases"].values())
    rows = [
        (label, f"{seconds:.3f} s", f"{100 * seconds / whole:.1f} %")
        for label, seconds in sorted(figures["phases"].items(), key=lambda item: -item[1])
    ]
    epoch = figures["epoch_seconds"]
    heading = (
        f"An epoch of {settings['train_images']} {settings['images']} images in batches of "
        f"{settings['batch_size']}: {epoch['all']:.3f} s, {epoch['training']:.3f} s of it training; phases"
        f"{', each waited for and without graphs' if settings['device'] == 'cuda' else ''}"
    )
    return Table(heading, ("phase", "time", "share"), rows)


def operators_table(figures: dict[str, Any]) -> Table:
    computing, whole = figures["computing_seconds"], figures["profiled_seconds"]
    rows = [
        (
            short(row["name"]),
            str(row["calls"]),
            f"{row['seconds']:.3f} s",
            f"{100 * row['seconds'] / computing:.1f} %",
        )
        for row in figures["operators"]
    ]
    heading = (
        f"The same epoch under torch.profiler: {computing:.3f} s in operators of {whole:.3f} s (the rest: "
        "gaps and the profiler itself); the first by time of their own"
    )
    return Table(heading, ("operator or kernel", "calls", "time", "share"), rows)


def short(name: str) -> str:
    """A kernel's name without its arguments, in a table's cell."""
    name = name.partition("(")[0].replace("|", "/")
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


if __name__ == "__main__":
    main()
