"""A study's storage with a list of trials that is already known, for samplers and pruners to read.

Uses of Optuna's internals, held by a test: ``Study._storage`` and its ``get_all_trials``, by which samplers
and pruners read a study's trials.
"""

from __future__ import annotations

import copy
from collections.abc import Container
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState


class Snapshot:
    """The storage, of which all that is not said here goes to the real one."""

    def __init__(self, study: optuna.Study) -> None:
        self._storage = study._storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def known(self) -> list[FrozenTrial]:
        """The trials, in the order of their numbers."""
        raise NotImplementedError

    def get_all_trials(
        self, _study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials, as ``BaseStorage`` has it."""
        trials = [trial for trial in self.known() if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials
