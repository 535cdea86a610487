"""The study as a sampler sees it while it draws one trial: read once, and written once.

Optuna reads the trial list again for each parameter of each trial, with all that runs, and stores each
parameter in a transaction of its own. Under the study's lock nothing that samplers look at changes.

Uses of Optuna's internals, held by a test: ``Study._storage``, whose ``get_all_trials`` and
``set_trial_param`` are what a trial and its sampler call to read the others and to store a parameter.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from studies.writing import Parameter


class DrawnStudy(optuna.Study):
    """A study of which the trials are known, and in which the parameters drawn wait to be written."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        """Take what is known; ``trials`` are in the order of their numbers."""
        self._known = _Known(study, trials)
        super().__init__(
            study.study_name,
            storage=self._known,  # type: ignore[arg-type]
            sampler=study.sampler,
            pruner=study.pruner,
        )

    @property
    def parameters(self) -> list[Parameter]:
        """What was drawn."""
        return self._known.parameters


class _Known:
    """A study's storage with its trials as they were, and a place for what is drawn."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        self.parameters: list[Parameter] = []
        self._storage = study._storage
        self._trials = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, _study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials, as ``BaseStorage`` has it."""
        trials = [trial for trial in self._trials if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def set_trial_param(
        self, _trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Keep a parameter, to be written with the others."""
        self.parameters.append((param_name, param_value_internal, distribution))
