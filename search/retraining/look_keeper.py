"""Telling the study of looks at the test images, where it can be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from importlib.metadata import version
from typing import Any

from spaces.text import plain
from studies.export import ExportedConfiguration
from studies.looks import Look, add_looks
from studies.record import fingerprint_of
from studies.storage import open_storage
from studies.study import SearchStudy
from studies.urls import masked


class LookKeeper:
    """Records looks in the study that a configuration comes from. Never fails: it says why it could not."""

    def __init__(self, export: ExportedConfiguration, folder: str, storage_url: str) -> None:
        """Find out whether the study can be reached.

        Args:
            export: names the study.
            folder: the name that looks are recorded under.
            storage_url: of the study, as the user or this machine's settings name it. What the export says is
                only shown: a file from someone else must not make this program open anything.
        """
        self._export, self._folder, self._url = export, folder, storage_url
        self._problem = ""
        self._try(lambda study: None, write=False)

    def outlook(self) -> str:
        """Whether looks will be recorded, for people."""
        if self._problem:
            there = masked(self._export.storage)
            return (
                "note: the test evaluation is recorded in the folder alone (metrics.json), and not in study "
                f"{self._export.study!r}: {self._problem}; if that study is yours, say where it is by "
                f"--storage (the file says {plain(there)})"
            )
        return f"looks at the test images are recorded in metrics.json and in study {self._export.study!r}"

    def outcome(self) -> str:
        """What was recorded in the end, for people."""
        return self.outlook() if self._problem else f"study {self._export.study!r} has recorded the looks"

    def keep(self, looks: Sequence[Mapping[str, Any]]) -> None:
        """Record those that the study has not got yet: each with its date, seed and accuracy."""
        made = [
            Look(
                date=look["date"],
                folder=self._folder,
                seeds=(look["seed"],),
                accuracies=(look["accuracy"],),
                fingerprint=self._export.settings.fingerprint(),
                version=version("cifar-search"),
            )
            for look in looks
        ]
        if made and not self._problem:
            self._try(lambda study: add_looks(study, made), write=True)

    def _try(self, do: Callable[[SearchStudy], object], *, write: bool) -> None:
        try:
            with closing(open_storage(self._url, create=False, write=write)) as storage:
                study = SearchStudy(storage, self._export.study)
                if not self._is_its_study(study):
                    raise ValueError("the study of that name is another one")
                do(study)
        except ValueError as error:
            self._problem = str(error)

    def _is_its_study(self, study: SearchStudy) -> bool:
        """Whether the study is the one that the configuration comes from, and no other of its name."""
        export, record = self._export, study.record
        if (record.space_fingerprint, record.data.hash) != (export.space_fingerprint, export.data.hash):
            return False
        if export.trial is None:
            return True
        found = study.whole_trials([export.trial])
        return bool(found) and fingerprint_of(found[0]) == export.fingerprint
