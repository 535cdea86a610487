"""What a study has found so far: counts, leaderboard, levels, importances, time. Plain data, ready for JSON.

An accuracy is that of ``runs`` trainings on the study's validation images; nothing here is an interval, since
an adaptive, pruned search samples unevenly: levels are described, not tested.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from spaces.parameter import Parameter
from spaces.text import plain
from studies.attributes import misfits_of
from studies.convergence import convergence
from studies.importance import importances
from studies.levels import levels
from studies.record import (
    accuracy_of,
    curve_of,
    fingerprint_of,
    flaw_of,
    history_of,
    is_foreign,
    outcome_of,
    reason_of,
    setup_of,
    slot_of,
)
from studies.slots import Slots
from studies.study import SearchStudy

_AT_ONCE = 500
"""Whole trials in memory while all of them are told."""
SENSELESS = 5
"""Lines on what makes no sense."""


@dataclass(frozen=True)
class Entry:
    """One configuration on the leaderboard."""

    accuracy: float
    """Mean validation accuracy over ``runs``."""
    runs: int
    spread: float | None
    """Standard deviation over the runs; None for a single one."""
    trials: tuple[int, ...]
    parameters: dict[str, Any]
    seconds: float
    """Mean training time of a run."""
    fingerprint: str
    """Of the configuration; empty for a trial that another program ran."""


@dataclass(frozen=True)
class Level:
    """What was seen of the trials at one level of a scientific parameter. Descriptive."""

    parameter: str
    level: str
    trials: int
    pruned: int
    best: float | None
    top_quarter: float | None
    """Mean accuracy of the better quarter (at least one) of the completed trials."""


@dataclass(frozen=True)
class GivenUp:
    """A slot that failed for good."""

    slot: int
    trial: int
    """Number of its last attempt."""
    attempts: int
    reason: str
    message: str
    """The last line of what is known."""


@dataclass(frozen=True)
class Summary:
    """A study at one moment."""

    name: str
    space: str
    question: str
    dataset: str
    train_images: int
    val_images: int
    epochs: int
    total: int | None
    closed: int
    ended: dict[str, int]
    """Closed slots by the reason of the attempt that closed them."""
    attempts: int
    repeated: dict[str, int]
    """Attempts that did not close their slot, by why they ended; "running" for those that have not."""
    given_up: tuple[GivenUp, ...]
    senseless: dict[int, str]
    """By their numbers, trials whose record another program must have written, and what is wrong with it.
    They are left out of everything else."""
    misfits: dict[int, dict[str, str]]
    """By trial and name, parameters that another program must have written, and what is wrong with each. The
    trials count, without them."""
    foreign: int
    """Trials that another program ran in this study. They are left out too."""
    eager: tuple[str, ...]
    """Why steps of trials on a GPU were not captured, each reason once."""
    leaderboard: tuple[Entry, ...]
    levels: tuple[Level, ...]
    importances: dict[str, float]
    """PED-ANOVA shares of the completed trials' variance; empty where there are too few, or all are alike."""
    seconds_trained: float
    seconds_saved: float
    """Estimate: the epochs that pruned trials did not run, at their own speed."""
    device: tuple[str, ...]
    environments: dict[str, int]
    """Devices with versions, and how many of the closed slots were trained so."""
    notices: tuple[str, ...]

    @property
    def standard_error(self) -> float | None:
        """Binomial standard error of the best accuracy, from the number of validation images alone."""
        if not self.leaderboard:
            return None
        accuracy = self.leaderboard[0].accuracy
        return math.sqrt(accuracy * (1 - accuracy) / self.val_images)


def summarize(study: SearchStudy) -> Summary:
    """Read a study and sum it up."""
    all_trials = study.trials_in_brief()
    senseless = {trial.number: flaw for trial in all_trials if (flaw := flaw_of(trial))}
    foreign = {trial.number for trial in all_trials if is_foreign(trial)}
    left = (t for t in all_trials if t.number not in senseless and t.number not in foreign)
    trials = [study.fitting(trial) for trial in left]
    slots = Slots(trials)
    closing = slots.closing_trials()
    all_outcomes = [outcome for trial in trials if (outcome := outcome_of(trial))]
    record = study.record
    return Summary(
        name=study.name,
        space=record.space_name,
        question=study.space.question,
        dataset=record.data.name,
        train_images=record.split.train_images,
        val_images=record.split.val_images,
        epochs=record.epochs,
        total=study.total(),
        closed=len(closing),
        ended=dict(Counter(reason_of(trial) for trial in closing)),
        attempts=len(all_trials),
        repeated=_repeated(trials, closing),
        given_up=tuple(_given_up(slots)),
        senseless=senseless,
        misfits={trial.number: misfits for trial in trials if (misfits := misfits_of(trial))},
        foreign=len(foreign),
        eager=tuple(sorted({outcome.eager for outcome in all_outcomes if outcome.eager})),
        leaderboard=leaderboard(closing),
        levels=tuple(_levels(study, closing)),
        importances=importances(trials),
        seconds_trained=sum(outcome.seconds for outcome in all_outcomes),
        seconds_saved=sum(_saved(trial, record.epochs) for trial in closing),
        device=tuple(sorted({outcome.device for outcome in all_outcomes if outcome.device})),
        environments=environments(closing),
        notices=tuple(study.notices()),
    )


def left_out(summary: Summary) -> list[str]:
    """Lines on the trials that count for nothing, and on those of which a parameter does."""
    lines = [f"trial {n} makes no sense, and is left out: {why}" for n, why in summary.senseless.items()]
    lines += [
        f"trial {number} counts without its parameter {plain(name)}, which makes no sense: {why}"
        for number, misfits in summary.misfits.items()
        for name, why in misfits.items()
    ]
    more = len(lines) - SENSELESS
    if more > 0:
        lines = [*lines[:SENSELESS], f"{more} more trial(s) make no sense (show --json)"]
    if summary.foreign:
        lines.append(f"{summary.foreign} trial(s) of other programs are left out")
    return lines


def environments(closing: Iterable[FrozenTrial]) -> dict[str, int]:
    """On what the trials ran, by how many of them did."""
    outcomes = [outcome for trial in closing if (outcome := outcome_of(trial)) and outcome.versions]
    return dict(Counter(f"{outcome.device} with {outcome.software}" for outcome in outcomes).most_common())


def _repeated(trials: Iterable[FrozenTrial], closing: list[FrozenTrial]) -> dict[str, int]:
    closed_by = {trial.number for trial in closing}
    others = [trial for trial in trials if trial.number not in closed_by]
    return dict(Counter(reason_of(trial) if trial.state.is_finished() else "running" for trial in others))


def _given_up(slots: Slots) -> Iterator[GivenUp]:
    for slot in sorted(filter(slots.failed_for_good, slots.attempts)):
        attempts = slots.attempts[slot]
        outcome = outcome_of(attempts[-1])
        lines = outcome.message.strip().splitlines() if outcome else []
        last = lines[-1] if lines else ""
        yield GivenUp(slot, attempts[-1].number, len(attempts), reason_of(attempts[-1]), last)


def _completed(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def leaderboard(closing: list[FrozenTrial]) -> tuple[Entry, ...]:
    """Completed configurations, best mean first; runs of the same configuration are one entry."""
    by_configuration: dict[str, list[FrozenTrial]] = defaultdict(list)
    for trial in _completed(closing):
        by_configuration[fingerprint_of(trial) or f"\0{trial.number}"].append(trial)
    entries = [_entry(fingerprint, trials) for fingerprint, trials in by_configuration.items()]
    return tuple(sorted(entries, key=lambda entry: -entry.accuracy))


def ranked(study: SearchStudy) -> tuple[Entry, ...]:
    """A study's leaderboard."""
    return leaderboard(Slots(map(study.fitting, study.trials_in_brief())).closing_trials())


def _entry(fingerprint: str, trials: list[FrozenTrial]) -> Entry:
    values = [trial.value for trial in trials if trial.value is not None]
    outcomes = [outcome for trial in trials if (outcome := outcome_of(trial))]
    return Entry(
        accuracy=statistics.fmean(values),
        runs=len(values),
        spread=statistics.stdev(values) if len(values) > 1 else None,
        trials=tuple(trial.number for trial in trials),
        parameters=dict(trials[0].params),
        seconds=statistics.fmean(outcome.seconds for outcome in outcomes),
        fingerprint="" if fingerprint.startswith("\0") else fingerprint,
    )


def _levels(study: SearchStudy, closing: list[FrozenTrial]) -> Iterable[Level]:
    parameters = [trial.params for trial in closing]
    for parameter in study.space.parameters:
        if parameter.role != "scientific":
            continue
        labels, level_of = levels(parameter.domain)
        by_level: dict[str, list[FrozenTrial]] = {label: [] for label in labels}
        for trial, values in zip(closing, parameters, strict=True):
            level = level_of(values[parameter.name]) if parameter.name in values else None
            if level is not None:
                by_level[level].append(trial)
        yield from (_level(parameter, label, by_level[label]) for label in labels)


def _level(parameter: Parameter, label: str, trials: list[FrozenTrial]) -> Level:
    values = sorted((trial.value for trial in _completed(trials) if trial.value is not None), reverse=True)
    top = values[: max(1, round(len(values) / 4))]
    return Level(
        parameter=parameter.name,
        level=label,
        trials=len(trials),
        pruned=sum(trial.state == TrialState.PRUNED for trial in trials),
        best=values[0] if values else None,
        top_quarter=statistics.fmean(top) if top else None,
    )


def _saved(trial: FrozenTrial, epochs: int) -> float:
    outcome = outcome_of(trial)
    if outcome is None or outcome.reason != "pruned" or outcome.epoch == 0:
        return 0.0
    return outcome.seconds / outcome.epoch * (epochs - outcome.epoch)


def as_json(study: SearchStudy) -> Iterator[str]:
    """The text of a JSON object, for scripts, piece by piece: the summary, and every attempt in a line of its
    own, which is read when it is due."""
    summary = summarize(study)
    target = convergence_target(summary)
    head = {**asdict(summary), "standard_error": summary.standard_error}
    yield json.dumps(head, indent=2, allow_nan=False).removesuffix("\n}") + ',\n  "trials": ['
    before = "\n    "
    for trial in _in_turn(study, summary.attempts):
        yield before + _told(_attempt(study.fitting(trial), target))
        before = ",\n    "
    yield "\n  ]\n}\n"


def _told(attempt: dict[str, Any]) -> str:
    try:
        return json.dumps(attempt, allow_nan=False)
    except ValueError:  # another program wrote a number beyond all into the configuration
        return json.dumps({**attempt, "configuration": None}, allow_nan=False)


def _in_turn(study: SearchStudy, attempts: int) -> Iterator[FrozenTrial]:
    for start in range(0, attempts, _AT_ONCE):
        yield from study.whole_trials(range(start, min(start + _AT_ONCE, attempts)))


def convergence_target(summary: Summary) -> float:
    """The accuracy whose first epoch is asked for in every trial: 90 % of the best one's."""
    return 0.9 * summary.leaderboard[0].accuracy if summary.leaderboard else 0.0


def _attempt(trial: FrozenTrial, target: float) -> dict[str, Any]:
    setup, outcome = setup_of(trial), outcome_of(trial)
    return {
        "number": trial.number,
        "slot": slot_of(trial),
        "state": trial.state.name.lower(),
        "value": accuracy_of(trial),
        "parameters": dict(trial.params),
        "seed": setup.seed if setup else None,
        "configuration": setup.configuration if setup else None,
        "outcome": outcome.model_dump(mode="json") if outcome else None,
        "val_accuracy": curve_of(trial),
        "convergence": asdict(convergence(curve_of(trial), target)),
        "history": history_of(trial).model_dump(mode="json"),
    }
