"""How ``retrain`` and ``verify`` show themselves: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from search.output import make_console
from search.screen import WORTH_A_LINE
from search.training.reports import EpochReport
from studies.text import duration, percent


class RetrainScreen:
    """Lines that stay, and, on a terminal, a bar for each training."""

    def __init__(self) -> None:
        self._console = make_console(soft_wrap=True)
        self._bars: Progress | None = None
        self._tasks: dict[int, TaskID] = {}
        self._started: float | None = None
        self._epochs_seen = 0

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self._console.print(Text(line))

    def decoding(self, done: int, total: int) -> None:
        """Say that images were read, if there were enough for it to have taken time."""
        if done == total >= WORTH_A_LINE:
            print(f"decoded {total} images into the cache", file=sys.stderr, flush=True)  # noqa: T201

    def begin(self, trainings: int, epochs: int, parallel: int, validated: bool) -> None:
        """So many trainings of so many epochs are about to start, ``parallel`` at a time."""
        self._validated = validated
        self._trainings, self._epochs, self._parallel = trainings, epochs, max(1, min(parallel, trainings))
        if self._console.is_terminal and trainings:
            columns = (TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[words]}"))
            self._bars = Progress(*columns, console=self._console)
            self._bars.start()

    def epoch(self, index: int, report: EpochReport) -> None:
        """A training, numbered from 1, has ended an epoch."""
        line = epoch_line(report, self._epochs, self._validated)
        left = self._left(report)
        if self._bars is not None:
            if index not in self._tasks:
                self._tasks[index] = self._bars.add_task(f"seed {index}", total=self._epochs, words="")
            words = f"{report.epoch}/{self._epochs}, loss {report.train_loss:.3f}{left}"
            self._bars.update(self._tasks[index], completed=report.epoch, words=words)
        else:
            self.say(f"seed {index}: {line}{left}")

    def _left(self, report: EpochReport) -> str:
        """The time left: by the first epoch's own time, and then by the clock, all trainings together."""
        self._epochs_seen += 1
        to_do = self._trainings * self._epochs - self._epochs_seen
        if to_do <= 0:
            return ", then the test images and pictures"
        if self._started is None:
            self._started = time.monotonic()
            seconds = report.seconds / self._parallel
        else:
            seconds = (time.monotonic() - self._started) / (self._epochs_seen - 1)
        return f", about {duration(seconds * to_do)} left"

    def done(self, index: int, metrics: Mapping[str, Any]) -> None:
        """A training is finished and written down."""
        if self._bars is not None and index in self._tasks:
            self._bars.remove_task(self._tasks.pop(index))
        judged = metrics["judged_on"]
        said = f"{judged} accuracy {percent(metrics['accuracy'])}" if judged else "not judged"
        augmented = metrics.get("tta_accuracy")
        if augmented is not None:
            said += f", with test-time augmentation {percent(augmented)}"
        diverged = f", DIVERGED at epoch {metrics['epochs']}" if metrics["diverged"] else ""
        self.say(f"seed {index} finished: {said}, {duration(metrics['seconds'])}{diverged}")
        if isinstance(metrics["pictures"], str):
            self.say(f"seed {index}: {metrics['pictures']}")
            return
        for picture, file in metrics["pictures"].items():
            if file.startswith("none"):
                self.say(f"seed {index}: no picture of {picture}: {file.removeprefix('none: ')}")

    def close(self) -> None:
        """Give the terminal back."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def epoch_line(report: EpochReport, epochs: int, validated: bool = False) -> str:
    """One epoch in a line."""
    held_out = f", validation accuracy {percent(report.val_accuracy)}" if validated else ""
    return (
        f"epoch {report.epoch}/{epochs}: training loss {report.train_loss:.4f}, accuracy "
        f"{percent(report.train_accuracy)}{held_out}, {duration(report.seconds)}"
    )
