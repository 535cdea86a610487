"""What repeating the best configurations on fresh seeds and splits has shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from spaces.config import Configuration
from spaces.text import unknown
from studies.levels import levels
from studies.plan import PlannedEntry, PlanStudy, Results, find_plan
from studies.reading import read_names
from studies.record import decided_setup_of, outcome_of
from studies.statistics import Interval, compare, mean_interval
from studies.study import SearchStudy
from studies.summary import Entry, ranked
from studies.views import View, set_view, view_of, views_of

CONFIDENCE = 0.95


class _Chosen(View):
    fingerprint: str
    label: str
    level: str | None


class _ChoicesView(View):
    parameter: str | None
    chosen: tuple[_Chosen, ...]


@dataclass(frozen=True)
class Finalist:
    """One configuration that was repeated."""

    label: str
    trials: tuple[int, ...]
    """Numbers of the search's trials that ran it."""
    parameters: dict[str, Any]
    level: str | None
    """The level of the compared parameter that it is the best of; None unless levels were confirmed."""
    search_accuracy: float
    """Mean of its trials in the search."""
    accuracies: tuple[float, ...]
    """One for each complete block, in the order of blocks."""
    mean: float
    spread: float | None
    """Standard deviation over the blocks; None for a single one."""
    interval: Interval | None
    """Of the mean, by Student's t, for this finalist by itself."""
    difference: Interval | None
    """Of its mean minus the best one's, simultaneously with all other pairs; None for the best itself."""
    distinguished: bool
    """Whether it was distinguished from the best; only meaningful where there is a difference."""
    cheapest: bool
    """Whether it is the one of least training time among the best and those not distinguished from it."""
    seconds: float
    """Mean training time."""
    parameters_count: int | None
    multiply_adds: int | None

    @property
    def gap(self) -> float:
        """What being selected flattered: the score in the search minus the mean."""
        return self.search_accuracy - self.mean


@dataclass(frozen=True)
class Finalists:
    """All of them, best mean first."""

    study: str
    """The search."""
    plan: str
    """The study of the repetitions."""
    folds: int | None
    blocks: int
    """Complete blocks: fresh seeds and splits that every finalist was trained on."""
    parameter: str | None
    """The parameter whose levels were confirmed."""
    finalists: tuple[Finalist, ...]
    degrees_of_freedom: int
    confidence: float
    missing: tuple[str, ...]
    """What could not be used, for people to read."""


TOP = "top"
"""The view of the best configurations; those of the best of each level are called by the parameter."""


def confirm_name(study: str, folds: int | None) -> str:
    """The plan of a search's finalists."""
    return f"{study}/confirm" if folds is None else f"{study}/confirm-{folds}-fold"


@dataclass(frozen=True)
class Choice:
    """A configuration of the search that is to be repeated."""

    entry: Entry
    configuration: dict[str, Any]
    level: str | None = None

    @property
    def label(self) -> str:
        """What people call it."""
        trial = f"trial {self.entry.trials[0]}"
        return trial if self.level is None else f"{self.level} ({trial})"

    def planned(self) -> PlannedEntry:
        """The entry of the plan."""
        configuration = Configuration.read(self.configuration, self.label)
        return PlannedEntry(
            label=self.label, fingerprint=self.entry.fingerprint, configuration=configuration.tree()
        )


def choose_top(study: SearchStudy, top: int) -> list[Choice]:
    """The ``top`` best configurations of a search, or as many as have completed.

    Raises:
        ValueError: if none has.
    """
    return [_choice(study, entry) for entry in _completed(study)[:top]]


def choose_per_level(study: SearchStudy, parameter: str) -> list[Choice]:
    """The best configuration of each level of a parameter.

    Raises:
        ValueError: if the space has no such parameter, or fewer than two levels have a completed trial.
    """
    by_name = {each.name: each for each in study.space.parameters}
    if parameter not in by_name:
        raise unknown("parameter", parameter, by_name)
    labels, level_of = levels(by_name[parameter].domain)
    best: dict[str, Entry] = {}
    for entry in _completed(study):
        if parameter in entry.parameters:
            level = level_of(entry.parameters[parameter])
            if level is not None:
                best.setdefault(level, entry)
    if len(best) < 2:
        raise ValueError(f"{parameter}: two levels or more must have a completed trial, but got {len(best)}")
    return [_choice(study, best[level], level) for level in labels if level in best]


def _completed(study: SearchStudy) -> list[Entry]:
    entries = [entry for entry in ranked(study) if entry.fingerprint]
    if not entries:
        raise ValueError(
            f"study {study.name!r} has no completed trial yet, so that there is nothing to repeat"
        )
    return entries


def _choice(study: SearchStudy, entry: Entry, level: str | None = None) -> Choice:
    (trial,) = study.whole_trials(entry.trials[:1])
    return Choice(entry, decided_setup_of(trial).configuration, level)


def remember_choices(plan: PlanStudy, choices: Sequence[Choice], parameter: str | None) -> None:
    """Keep with the plan which configurations were chosen, and for what."""
    chosen = tuple(
        _Chosen(fingerprint=choice.entry.fingerprint, label=choice.label, level=choice.level)
        for choice in choices
    )
    set_view(plan, parameter or TOP, _ChoicesView(parameter=parameter, chosen=chosen))


def finalists_of(storage: RDBStorage, study_name: str, parameter: str | None = None) -> Finalists | None:
    """What repeating a search's best configurations has shown; None if that was not done, or not one block of
    it is complete.

    Args:
        storage: of the search.
        study_name: of the search.
        parameter: whose levels' best are wanted; None: the best of all, or else of whatever was repeated.
    """
    return all_finalists_of(SearchStudy(storage, study_name), [parameter])[0]


def all_finalists_of(study: SearchStudy, parameters: Sequence[str | None]) -> list[Finalists | None]:
    """As ``finalists_of``, for each parameter."""
    plans = confirmations(study)
    wanted = [[TOP, None] if parameter is None else [parameter] for parameter in parameters]
    found = [(finalists_in(plan, study, view) for view in views for plan in plans) for views in wanted]
    return [next((finalists for finalists in each if finalists), None) for each in found]


def confirmations(study: SearchStudy) -> list[PlanStudy]:
    """The plans that repeated a search's configurations: that of hold-out first, then cross-validations."""
    folded = sorted(n for n in read_names(study.storage) if n.startswith(f"{study.name}/confirm-"))
    plans = (find_plan(study.storage, name) for name in (confirm_name(study.name, None), *folded))
    return [plan for plan in plans if plan and belongs(plan, study)]


def belongs(plan: PlanStudy, study: SearchStudy) -> bool:
    """Whether the plan is of this search, and not of an earlier one of the same name, or of a file."""
    return (plan.record.parent, plan.record.parent_id) == (study.name, study.record.mark)


def finalists_in(plan: PlanStudy, study: SearchStudy, parameter: str | None = None) -> Finalists | None:
    """As ``finalists_of``, from one plan; ``TOP`` means the best of all and nothing else."""
    known = views_of(plan)
    wanted = [parameter] if parameter is not None else [TOP, *known]
    views = (view_of(plan, name, _ChoicesView) for name in wanted if name in known)
    view = next(filter(None, views), None)
    if view is None or not belongs(plan, study):
        return None
    entries = {entry.fingerprint: entry for entry in ranked(study)}
    fingerprints = [chosen.fingerprint for chosen in view.chosen if chosen.fingerprint in entries]
    results = Results(plan, fingerprints)
    if not results.blocks:
        return None
    return _finalists(plan, study, view, results, entries)


def _finalists(
    plan: PlanStudy, study: SearchStudy, view: _ChoicesView, results: Results, entries: Mapping[str, Entry]
) -> Finalists:
    values_EB = results.values_EB
    comparison = compare(values_EB) if min(values_EB.shape) > 1 else None
    best = max(range(len(values_EB)), key=lambda index: fmean(values_EB[index]))
    apart = [bool(comparison and comparison.distinguished(i, best)) for i in range(len(values_EB))]
    seconds = [mean_cost(results.trials(f))[0] for f in results.fingerprints]
    cheapest = min((i for i in range(len(apart)) if not apart[i]), key=lambda i: seconds[i])
    chosen = {each.fingerprint: each for each in view.chosen}
    finalists = [
        _finalist(
            chosen[fingerprint],
            entries[fingerprint],
            results.trials(fingerprint),
            comparison.interval(index, best) if comparison and index != best else None,
            apart[index],
            index == cheapest,
        )
        for index, fingerprint in enumerate(results.fingerprints)
    ]
    return Finalists(
        study=study.name,
        plan=plan.name,
        folds=plan.record.folds,
        blocks=len(results.blocks),
        parameter=view.parameter,
        finalists=tuple(sorted(finalists, key=lambda finalist: -finalist.mean)),
        degrees_of_freedom=comparison.degrees_of_freedom if comparison else 0,
        confidence=CONFIDENCE,
        missing=tuple(results.missing),
    )


def _finalist(
    chosen: _Chosen,
    entry: Entry,
    trials: list[FrozenTrial],
    difference: Interval | None,
    distinguished: bool,
    cheapest: bool,
) -> Finalist:
    values = [trial.value for trial in trials if trial.value is not None]
    seconds, parameters, multiply_adds = mean_cost(trials)
    several = len(values) > 1
    return Finalist(
        label=chosen.label,
        trials=entry.trials,
        parameters=entry.parameters,
        level=chosen.level,
        search_accuracy=entry.accuracy,
        accuracies=tuple(values),
        mean=fmean(values),
        spread=stdev(values) if several else None,
        interval=mean_interval(values, CONFIDENCE, (0.0, 1.0)) if several else None,
        difference=difference,
        distinguished=distinguished,
        cheapest=cheapest,
        seconds=seconds,
        parameters_count=parameters,
        multiply_adds=multiply_adds,
    )


def mean_cost(trials: Sequence[FrozenTrial]) -> tuple[float, int | None, int | None]:
    """Mean training seconds, parameters and multiply-adds of trials of one configuration."""
    outcomes = [outcome for trial in trials if (outcome := outcome_of(trial))]
    if not outcomes:
        return 0.0, None, None
    seconds = fmean(outcome.seconds for outcome in outcomes)
    return seconds, outcomes[-1].parameters, outcomes[-1].multiply_adds
