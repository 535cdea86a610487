"""What the death of a worker says of the attempt that it trained.

Workers die alone (the out-of-memory killer), or together with the command that leads them (a machine that
loses its power, a container that is stopped). Only the first may be due to what was trained. Whoever leads
them sees how they ended, so that others leave the dead of a living leader to it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from types import MappingProxyType

from optuna.trial import FrozenTrial

from studies.processes import is_dead
from studies.record import Outcome, Reason, leader_of, worker_of

NONE_ENDED: Mapping[str, Reason] = MappingProxyType({})
"""Where nobody is known to have ended but whose process is gone."""


def death(trial: FrozenTrial, ended: Mapping[str, Reason], silent: Container[int]) -> Outcome | None:
    """How a running attempt ended with its worker; None while that may be alive.

    Args:
        trial: the attempt.
        ended: by the names of workers that the caller has seen to end, the reason of their attempts.
        silent: ids of the attempts that have shown no sign of life for as long as is waited for one.
    """
    worker, leader = worker_of(trial), leader_of(trial)
    if worker in ended:
        return _outcome(trial, ended[worker], "its worker was ended")
    if is_dead(worker) and not leader:
        return _outcome(trial, "killed", "its worker died")
    if is_dead(worker) and is_dead(leader):
        return _outcome(trial, "interrupted", "its worker died together with its command")
    if trial._trial_id in silent:
        return _outcome(trial, "lost", "its worker fell silent")
    return None


def _outcome(trial: FrozenTrial, reason: Reason, message: str) -> Outcome:
    return Outcome(reason=reason, message=message, reached=len(trial.intermediate_values))
