"""What a study says about its parameters, and which command would settle what it cannot. Plain data.

A balanced comparison gave every level the same number of trials to tune its nuisance parameters with; a grid
gave every point the same. There, levels are compared by their best and by the mean of their top quarter. The
best of several single runs is flattered, by more where more were run, so that the answer is what repeating
the best of each level showed (``confirm --per-level``). In any other search the levels are described: an
adaptive sampler and a pruner see to it that they are not sampled alike.
"""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from spaces.parameter import Parameter
from studies.ablation import Ablation, ablation_of
from studies.attributes import FIXED
from studies.convergence import Convergence, convergence
from studies.finalists import Finalist, Finalists, all_finalists_of
from studies.importance import RESAMPLES, Importances, resampled_importances
from studies.interactions import Interaction, interactions
from studies.levels import levels
from studies.record import curve_of, fingerprint_of, is_evidence, reason_of, sampler_of, slot_of
from studies.slots import Slots
from studies.statistics import LEAST_RESAMPLED, Interval, resampled_mean_interval
from studies.study import SearchStudy

Sampling = Literal["balanced", "grid", "free"]
"""balanced: every level had the same number of trials; grid: every point had; free: neither."""

CONFIDENCE = 0.95
SEEDS = 5
ENOUGH_SEEDS = 20
"""Repetitions after which more of them are not suggested any more."""


@dataclass(frozen=True)
class LevelEffect:
    """The trials at one level of a parameter. Accuracies are of single runs on the validation images."""

    level: str
    trials: int
    """Closed slots."""
    completed: int
    pruned: int
    diverged: int
    failed: int
    """Out of memory, invalid, or given up after errors."""
    best: float | None
    best_trial: int | None
    top_quarter: float | None
    """Mean of the better quarter (at least one) of the completed trials."""
    mean: float | None
    """Of the completed trials."""
    spread: float | None
    """Standard deviation of the completed trials; None for fewer than two."""
    interval: Interval | None
    """Of the mean of completed trials, simultaneously for the levels of a parameter; None where the sampling
    justifies none."""
    convergence: Convergence | None
    """Of the best trial."""
    confirmed: Finalist | None
    """Its best configuration, repeated on fresh seeds and splits."""


@dataclass(frozen=True)
class ParameterEffect:
    """A scientific parameter, or one whose levels were confirmed."""

    parameter: str
    sampling: Sampling
    equal_budget: bool
    """Whether all levels have the same number of closed slots by now."""
    levels: tuple[LevelEffect, ...]
    confirmed: bool
    """Whether the best of the levels were repeated: then that is the answer."""
    blocks: int
    """Fresh seeds and splits on which they were; 0 without."""
    folds: int | None
    """Parts of the cross-validation that they were repeated by; None: repeated hold-out."""
    confidence: float
    """Of all intervals of levels together."""


@dataclass(frozen=True)
class Suggestion:
    """A command, and what it would settle."""

    command: str
    why: str


@dataclass(frozen=True)
class Effects:
    """A study's effects at one moment."""

    study: str
    question: str
    epochs: int
    val_images: int
    closed: int
    total: int | None
    completed: int
    sampling: Sampling
    target: float
    """The accuracy whose first epoch the convergence figures name: 90 % of the best one's."""
    standard_error: float | None
    """Binomial standard error of the best accuracy, from the number of validation images alone."""
    parameters: tuple[ParameterEffect, ...]
    intervals_reason: str | None
    """Why levels of this study have no interval; None where those of enough trials have one."""
    importances: Importances
    interactions: tuple[Interaction, ...]
    next: tuple[Suggestion, ...]
    """What would settle what is open, the most needed first."""
    missing: tuple[str, ...]
    """What could not be used, for people to read."""


def effects_of(
    study: SearchStudy,
    *finalists: Finalists | None,
    ablation: Ablation | None = None,
    resamples: int = RESAMPLES,
) -> Effects:
    """Work out a study's effects. ``read_effects`` also looks up what ``confirm`` and ``ablate`` found.

    Args:
        study: the search.
        finalists: what ``confirm`` found for it: of the best trials, of the levels of one parameter or more.
        ablation: what ``ablate`` found for it, if it ran.
        resamples: of the completed trials, for the spread of the importances; each takes about 30 ms.
    """
    trials = [study.fitting(trial) for trial in study.trials_in_brief() if is_evidence(trial)]
    slots = Slots(trials)
    closing = slots.closing_trials()
    completed = [trial for trial in closing if trial.state == TrialState.COMPLETE]
    highest = max((trial.value or 0.0 for trial in completed), default=0.0)
    val_images, target = study.record.split.val_images, 0.9 * highest
    reason = intervals_reason(study, slots)
    by_parameter = {found.parameter: found for found in finalists if found is not None}
    shown = [p for p in study.space.parameters if p.role == "scientific" or p.name in by_parameter]
    levels_of = {p.name: _by_level(p, closing) for p in shown}
    bests = [best for each in levels_of.values() for of_level in each.values() if (best := _best(of_level))]
    curves = {t.number: curve_of(t) for t in study.whole_trials({best.number for best in bests})}
    converged = {number: convergence(curve, target) for number, curve in curves.items()}
    parameters = tuple(
        _effect(study, p, levels_of[p.name], converged, reason is None, by_parameter.get(p.name))
        for p in shown
    )
    winner = max(completed, key=lambda trial: trial.value or 0.0, default=None)
    return Effects(
        study=study.name,
        question=study.space.question,
        epochs=study.epochs,
        val_images=val_images,
        closed=len(closing),
        total=study.total(),
        completed=len(completed),
        sampling=_sampling(study, study.space.balance),
        target=target,
        standard_error=math.sqrt(highest * (1 - highest) / val_images) if completed else None,
        parameters=parameters,
        intervals_reason=reason,
        importances=resampled_importances(trials, resamples),
        interactions=interactions(study.space, completed),
        next=tuple(_suggestions(study, parameters, winner, by_parameter, ablation)),
        missing=(
            *_open(study, trials, closing),
            *(note for each in by_parameter.values() for note in each.missing),
        ),
    )


def read_effects(study: SearchStudy, resamples: int = RESAMPLES) -> Effects:
    """A study's effects, together with all that ``confirm`` and ``ablate`` found for it."""
    wanted = [None, *(parameter.name for parameter in study.space.parameters)]
    ablation = ablation_of(study.storage, study.name)
    with study.at_one_moment():
        return effects_of(study, *all_finalists_of(study, wanted), ablation=ablation, resamples=resamples)


def intervals_reason(study: SearchStudy, slots: Slots) -> str | None:
    """Why nothing but a description of the levels is justified; None where intervals are: all trials were
    drawn at random or make up a whole grid, none was chosen by hand, and none was pruned."""
    closing = slots.closing_trials()
    samplers = {sampler for trial in closing if (sampler := sampler_of(trial))}
    adaptive = samplers - {"random", "grid"}
    pruned = sum(reason_of(trial) == "pruned" for trial in closing)
    if not closing:
        return "no trial has ended yet"
    if adaptive:
        return f"trials were drawn by {' and '.join(sorted(adaptive))}, which goes by what did well before"
    if pruned:
        return f"{pruned} of {len(closing)} trials were pruned: the completed ones are the better ones"
    if "grid" in samplers and len(closing) < len(study.space.grid()) * study.record.repeat:
        return "the grid is not complete"
    if any(slots.is_running(slot) for slot in slots.attempts):
        return "trials are still running, and those that end first may differ from the others"
    chosen = _chosen(slots) if "random" in samplers else 0
    return f"{chosen} of {len(closing)} trials were not drawn but chosen" if chosen else None


def _chosen(slots: Slots) -> int:
    """Slots whose first attempt was begun with values, and so was not left to the sampler."""
    return sum(bool(trials[0].system_attrs.get(FIXED)) for trials in slots.attempts.values())


def _sampling(study: SearchStudy, parameter: str | None) -> Sampling:
    if study.record.sampler == "grid":
        return "grid"
    return "balanced" if parameter and parameter == study.space.balance else "free"


def _by_level(parameter: Parameter, closing: Iterable[FrozenTrial]) -> dict[str, list[FrozenTrial]]:
    """The trials at each level of a parameter, in the order of levels."""
    labels, level_of = levels(parameter.domain)
    by_level: dict[str, list[FrozenTrial]] = {label: [] for label in labels}
    for trial in closing:
        level = level_of(trial.params[parameter.name]) if parameter.name in trial.params else None
        if level is not None:
            by_level[level].append(trial)
    return by_level


def _effect(
    study: SearchStudy,
    parameter: Parameter,
    by_level: Mapping[str, list[FrozenTrial]],
    converged: Mapping[int, Convergence],
    with_intervals: bool,
    finalists: Finalists | None,
) -> ParameterEffect:
    repeated = finalists.finalists if finalists else ()
    confirmed = {finalist.level: finalist for finalist in repeated if finalist.level is not None}
    tested = [label for label, trials in by_level.items() if len(_values(trials)) >= LEAST_RESAMPLED]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(tested)) if with_intervals else None
    return ParameterEffect(
        parameter=parameter.name,
        sampling=_sampling(study, parameter.name),
        equal_budget=len({len(trials) for trials in by_level.values()}) == 1,
        levels=tuple(
            _level(label, trials, converged, confidence, confirmed.get(label))
            for label, trials in by_level.items()
        ),
        confirmed=bool(confirmed),
        blocks=finalists.blocks if finalists else 0,
        folds=finalists.folds if finalists else None,
        confidence=CONFIDENCE,
    )


def _values(trials: Iterable[FrozenTrial]) -> list[float]:
    """Accuracies of the completed trials, the best first."""
    completed = (trial.value for trial in trials if trial.state == TrialState.COMPLETE)
    return sorted((value for value in completed if value is not None), reverse=True)


def _best(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The completed trial of the highest accuracy."""
    completed = (t for t in trials if t.state == TrialState.COMPLETE and t.value is not None)
    return max(completed, key=lambda trial: trial.value or 0.0, default=None)


def _level(
    label: str,
    trials: list[FrozenTrial],
    converged: Mapping[int, Convergence],
    confidence: float | None,
    confirmed: Finalist | None,
) -> LevelEffect:
    values = _values(trials)
    top = values[: max(1, round(len(values) / 4))]
    best = _best(trials)
    reasons = [reason_of(trial) for trial in trials]
    return LevelEffect(
        level=label,
        trials=len(trials),
        completed=len(values),
        pruned=reasons.count("pruned"),
        diverged=reasons.count("diverged"),
        failed=sum(trial.state == TrialState.FAIL for trial in trials),
        best=best.value if best else None,
        best_trial=best.number if best else None,
        top_quarter=statistics.fmean(top) if top else None,
        mean=statistics.fmean(values) if values else None,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        interval=resampled_mean_interval(values, confidence) if confidence else None,
        convergence=converged[best.number] if best else None,
        confirmed=confirmed,
    )


def _open(study: SearchStudy, trials: Sequence[FrozenTrial], closing: Sequence[FrozenTrial]) -> Iterable[str]:
    total = study.total()
    if total is not None and len(closing) < total:
        yield f"{total - len(closing)} of {total} trials are still open, so that all of this may change"
    unknown = [trial for trial in trials if slot_of(trial) is None]
    if unknown:
        yield f"{len(unknown)} trials were made by another program and are not counted in the levels"


def _suggestions(
    study: SearchStudy,
    parameters: Sequence[ParameterEffect],
    winner: FrozenTrial | None,
    finalists: Mapping[str | None, Finalists],
    ablation: Ablation | None,
) -> Iterable[Suggestion]:
    """Levels of one parameter that were given equal budgets are settled by confirming them; a free search,
    and a grid of several parameters, by confirming the best trials, and by taking the winner apart."""
    compared = [effect for effect in parameters if effect.sampling != "free" and _is_comparable(effect)]
    confirmed = [effect for effect in compared if effect.confirmed]
    settled_by_levels = confirmed or (compared if len(compared) == 1 else [])
    for effect in settled_by_levels:
        yield from _per_level(study.name, effect, finalists.get(effect.parameter))
    if not settled_by_levels and winner is not None:
        yield from _top(study.name, finalists.get(None))
    if ablation is None and _differs_from_base(study, winner) and (finalists or not settled_by_levels):
        yield Suggestion(
            f"cifar-search ablate {shlex.quote(study.name)} --seeds 3",
            "which of the winner's settings matter: each put back to the base alone, on fresh seeds",
        )


def _is_comparable(effect: ParameterEffect) -> bool:
    return sum(level.completed > 0 for level in effect.levels) > 1


def _differs_from_base(study: SearchStudy, winner: FrozenTrial | None) -> bool:
    fingerprint = fingerprint_of(winner) if winner else None
    return fingerprint is not None and fingerprint != study.space.base.fingerprint()


def _per_level(study: str, effect: ParameterEffect, finalists: Finalists | None) -> Iterable[Suggestion]:
    command = f"cifar-search confirm {shlex.quote(study)} --per-level {shlex.quote(effect.parameter)}"
    if finalists is None:
        yield Suggestion(
            command,
            f"which {effect.parameter} is best (so far a single run, picked as the best, stands for each)",
        )
    else:
        yield from _more_seeds(command, finalists, f"levels of {effect.parameter}")


def _top(study: str, finalists: Finalists | None) -> Iterable[Suggestion]:
    command = f"cifar-search confirm {shlex.quote(study)}"
    if finalists is None:
        yield Suggestion(
            f"{command} --top {SEEDS} --seeds {SEEDS}",
            "whether the best trial is best or was lucky: the best configurations on fresh seeds and splits",
        )
    else:
        yield from _more_seeds(f"{command} --top {len(finalists.finalists)}", finalists, "finalists")


def _more_seeds(command: str, finalists: Finalists, what: str) -> Iterable[Suggestion]:
    """Where some could not be distinguished from the best, and there are not many repetitions yet."""
    unsettled = sum(not finalist.distinguished for finalist in finalists.finalists) - 1
    if unsettled > 0 and finalists.blocks < ENOUGH_SEEDS and finalists.folds is None:
        yield Suggestion(
            f"{command} --seeds {max(SEEDS, 2 * finalists.blocks)}",
            f"what {finalists.blocks} seed(s) left open: {unsettled} of the {what} not distinguished "
            "from the best",
        )
