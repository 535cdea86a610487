"""What each setting of a configuration is worth: put back to the base alone, and put into the base alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from optuna.storages import RDBStorage

from spaces.ablation import DEFAULT_TOGETHER, Together, moved, step_groups
from spaces.config import Configuration
from spaces.parameter import Parameter
from studies.finalists import CONFIDENCE, belongs, mean_cost
from studies.plan import PlannedEntry, PlanStudy, Results, find_plan
from studies.statistics import Comparison, Interval, compare
from studies.study import SearchStudy
from studies.views import View, set_view, view_of

Kind = Literal["base", "winner", "base with", "winner without"]


@dataclass(frozen=True)
class Step:
    """One configuration of an ablation."""

    label: str
    kind: Kind
    changes: dict[str, tuple[Any, Any]]
    """Settings that differ from its reference by dotted path: the reference's and its own."""
    accuracies: tuple[float, ...]
    mean: float
    spread: float | None
    difference: Interval | None
    """Of its mean minus the reference's (the base's for "base with" and "winner", the winner's for "winner
    without"), simultaneously with all other pairs; None for the base."""
    seconds: float
    parameters_count: int | None
    multiply_adds: int | None


@dataclass(frozen=True)
class Ablation:
    """All steps: base, base with each, winner, winner without each."""

    plan: str
    winner: str
    """Where the winner comes from, for people to read."""
    blocks: int
    degrees_of_freedom: int
    confidence: float
    steps: tuple[Step, ...]
    missing: tuple[str, ...]
    """What could not be used, for people to read."""


VIEW = "ablation"


class _StepView(View):
    fingerprint: str
    label: str
    kind: Kind
    changes: dict[str, tuple[Any, Any]]


class _AblationView(View):
    steps: tuple[_StepView, ...]
    refused: tuple[str, ...]
    winner: str


def ablate_name(study: str) -> str:
    """The plan of a search's ablation."""
    return f"{study}/ablate"


@dataclass(frozen=True)
class Variant:
    """A configuration that an ablation trains."""

    label: str
    kind: Kind
    changes: dict[str, tuple[Any, Any]]
    configuration: Configuration

    def planned(self) -> PlannedEntry:
        """The entry of the plan."""
        return PlannedEntry.of(self.label, self.configuration)


def variants(
    base: Configuration,
    winner: Configuration,
    parameters: Iterable[Parameter] = (),
    together: Together = DEFAULT_TOGETHER,
) -> tuple[list[Variant], list[str]]:
    """All configurations of an ablation, base first and winner last, and what cannot be taken alone.

    Raises:
        ValueError: if the two configurations are the same.
    """
    groups = step_groups(base, winner, parameters, together)
    if not groups:
        raise ValueError("the winner and the base are the same configuration: there is nothing to ablate")
    both = {path: change for group in groups for path, change in group.changes.items()}
    made, refused = [Variant("base", "base", {}, base)], []
    single = len(groups) == 1
    for group in () if single else groups:
        try:
            made.append(_variant(f"base + {group.label}", "base with", base, winner, group.changes))
        except ValueError as error:
            refused.append(f"base + {group.label} cannot be trained alone: {error}")
    made.append(Variant("winner", "winner", both, winner))
    for group in () if single else groups:
        back = {path: (new, old) for path, (old, new) in group.changes.items()}
        try:
            made.append(_variant(f"winner - {group.label}", "winner without", winner, base, back))
        except ValueError as error:
            refused.append(f"winner - {group.label} cannot be trained alone: {error}")
    return made, refused


def _variant(
    label: str, kind: Kind, start: Configuration, target: Configuration, changes: dict[str, tuple[Any, Any]]
) -> Variant:
    return Variant(label, kind, changes, moved(start, target, changes))


def remember_variants(plan: PlanStudy, made: Sequence[Variant], refused: Sequence[str], winner: str) -> None:
    """Keep with the plan what the ablation consists of; ``winner`` says where the winner comes from."""
    steps = tuple(
        _StepView(
            fingerprint=variant.configuration.fingerprint(),
            label=variant.label,
            kind=variant.kind,
            changes=variant.changes,
        )
        for variant in made
    )
    set_view(plan, VIEW, _AblationView(steps=steps, refused=tuple(refused), winner=winner))


def ablation_of(storage: RDBStorage, study_name: str) -> Ablation | None:
    """What ablating a search's winner has shown; None if that was not done, or not one block is complete."""
    plan = find_plan(storage, ablate_name(study_name))
    return ablation_in(plan) if plan and belongs(plan, SearchStudy(storage, study_name)) else None


def ablation_in(plan: PlanStudy) -> Ablation | None:
    """As ``ablation_of``, from its plan."""
    view = view_of(plan, VIEW, _AblationView)
    if view is None:
        return None
    results = Results(plan, [step.fingerprint for step in view.steps])
    if not results.blocks:
        return None
    values_EB = results.values_EB
    comparison = compare(values_EB) if min(values_EB.shape) > 1 else None
    known = {fingerprint: index for index, fingerprint in enumerate(results.fingerprints)}
    reference = {step.kind: known.get(step.fingerprint) for step in view.steps}
    steps = [
        _step(step, known[step.fingerprint], reference, comparison, results)
        for step in view.steps
        if step.fingerprint in known
    ]
    return Ablation(
        plan=plan.name,
        winner=view.winner,
        blocks=len(results.blocks),
        degrees_of_freedom=comparison.degrees_of_freedom if comparison else 0,
        confidence=CONFIDENCE,
        steps=tuple(steps),
        missing=(*view.refused, *results.missing),
    )


def _step(
    step: _StepView,
    index: int,
    reference: Mapping[Kind, int | None],
    comparison: Comparison | None,
    results: Results,
) -> Step:
    trials = results.trials(results.fingerprints[index])
    values = [trial.value for trial in trials if trial.value is not None]
    seconds, parameters, multiply_adds = mean_cost(trials)
    other = reference.get("winner" if step.kind == "winner without" else "base")
    return Step(
        label=step.label,
        kind=step.kind,
        changes=step.changes,
        accuracies=tuple(values),
        mean=fmean(values),
        spread=stdev(values) if len(values) > 1 else None,
        difference=None
        if comparison is None or other in (None, index)
        else comparison.interval(index, other),
        seconds=seconds,
        parameters_count=parameters,
        multiply_adds=multiply_adds,
    )
