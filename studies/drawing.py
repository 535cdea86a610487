"""The study as a sampler sees it while it draws one trial: read once, and written once.

Optuna reads the trial list again for each parameter of each trial, with all that runs, and stores each
parameter in a transaction of its own. Under the study's lock nothing that samplers look at changes.

Uses of Optuna's internals, held by a test: a trial stores a parameter by the storage's ``set_trial_param``.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from studies.snapshots import Snapshot
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


class _Known(Snapshot):
    """A study's storage with its trials as they were, and a place for what is drawn."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        self.parameters: list[Parameter] = []
        self._trials = trials
        super().__init__(study)

    def known(self) -> list[FrozenTrial]:
        return list(self._trials)

    def set_trial_param(
        self, _trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Keep a parameter, to be written with the others."""
        self.parameters.append((param_name, param_value_internal, distribution))
