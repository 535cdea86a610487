"""The commands that repeat a study, and those that would add to it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from spaces.catalog import built_in
from studies.study import SearchStudy
from studies.urls import masked

if TYPE_CHECKING:
    from studies.report.sections import Subject


class Commands:
    """Of one study, ready to be typed."""

    def __init__(self, study: SearchStudy, storage_url: str, default_url: str) -> None:
        """A URL with a password is left to the environment variable CIFAR_SEARCH_STORAGE."""
        self._study = study
        self.built_in = study.record.space_name in built_in()
        self.space_file = f"{study.record.space_name}.yaml"
        secret = masked(storage_url) != storage_url
        url = '"$CIFAR_SEARCH_STORAGE"' if secret else shlex.quote(storage_url)
        self._where = "" if storage_url == default_url else f" --storage {url}"

    def with_storage(self, command: str) -> str:
        """The command with the storage's URL."""
        return command + self._where

    def run(self) -> str:
        """The search."""
        record = self._study.record
        options: dict[str, object] = {
            "--space": record.space_name if self.built_in else self.space_file,
            "--dataset": record.data.source or record.data.name,
            "--image-size": record.data.image_size,
            "--val-size": record.split.val_size,
            "--train-size": record.split.train_size,
            "--epochs": record.epochs,
            "--trials": self._study.total(),
            "--seed": record.seed,
            "--sampler": record.sampler,
            "--pruner": record.pruner,
            "--repeat": record.repeat if record.sampler == "grid" else None,
            "--precision": record.precision,
            "--study": self._study.name,
        }
        words = [f"{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None]
        return self.with_storage(f"cifar-search run {' '.join(words)}")

    def confirm(
        self, top: int = 5, seeds: int = 5, folds: int | None = None, level: str | None = None
    ) -> str:
        """Repetitions of the best configurations, or of the best of each level of a parameter."""
        what = f"--per-level {shlex.quote(level)}" if level else f"--top {top}"
        how = f"--folds {folds} --seeds {max(1, seeds // folds)}" if folds else f"--seeds {seeds}"
        return self._of("confirm", f"{what} {how}")

    def ablate(self, seeds: int = 3) -> str:
        """The ablation of the winner."""
        return self._of("ablate", f"--seeds {seeds}")

    def retrain(self, confirmed: bool = False) -> tuple[str, ...]:
        """The export of the best, and its training with a look at the test split."""
        export = self._of("export", ("--confirmed " if confirmed else "") + "-o best.yaml")
        return export, "cifar-search retrain best.yaml --seeds 3 -o runs/best"

    def report(self) -> str:
        """This page."""
        return self._of("report", "-o report.html")

    def _of(self, command: str, options: str) -> str:
        return self.with_storage(f"cifar-search {command} {shlex.quote(self._study.name)} {options}")

    def caveats(self) -> list[str]:
        """What the commands do not tell."""
        found = []
        if not self._study.record.data.source:
            found.append(
                "The study does not say where its data were loaded from: --dataset may need a folder."
            )
        if self._study.total() is None:
            found.append("The search was bounded by time: add --timeout, or the number of trials.")
        return found

    def all(self, subject: Subject) -> tuple[str, ...]:
        """Everything that was done, in order."""
        found = [self.run()]
        for each in subject.all_finalists:
            found.append(self.confirm(len(each.finalists), each.blocks, each.folds, each.parameter))
        if subject.ablation:
            found.append(self.ablate(subject.ablation.blocks))
        found += self.retrain(bool(subject.all_finalists))
        return (*found, self.report())
