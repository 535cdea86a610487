"""Telling the study of looks at the test images, where it can be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from importlib.metadata import version
from typing import Any

from studies.export import ExportedConfiguration
from studies.looks import Look, add_looks
from studies.record import setup_of
from studies.storage import open_storage
from studies.study import SearchStudy


class LookKeeper:
    """Records looks in the study that a configuration comes from. Never fails: it says why it could not."""

    def __init__(self, export: ExportedConfiguration, folder: str, storage_url: str | None) -> None:
        """Find out whether the study can be reached.

        Args:
            export: names the study.
            folder: the name that looks are recorded under.
            storage_url: of the study; None: where the export says that it is.
        """
        self._export, self._folder = export, folder
        self._url = storage_url or export.storage
        self._problem = ""
        if storage_url is None and not export.storage.startswith("sqlite:"):
            # a file from someone else must not make this program log in anywhere
            self._problem = "it is on a server (give --storage)"
        else:
            self._try(lambda study: None)

    def outlook(self) -> str:
        """Whether looks will be recorded, for people."""
        if self._problem:
            return (
                "note: looks at the test images are recorded in metrics.json, but not in study "
                f"{self._export.study!r}: {self._problem}"
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
            self._try(lambda study: add_looks(study, made))

    def _try(self, do: Callable[[SearchStudy], object]) -> None:
        try:
            with closing(open_storage(self._url, create=False, write=True)) as storage:
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
        trials = study.trials()
        if export.trial is None:
            return True
        setup = setup_of(trials[export.trial]) if export.trial < len(trials) else None
        return setup is not None and setup.fingerprint == export.fingerprint
