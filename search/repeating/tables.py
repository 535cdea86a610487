"""The tables that finalists and ablations are shown as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from studies.ablation import Ablation, Step
from studies.finalists import Finalist, Finalists
from studies.statistics import Interval
from studies.text import duration, percent, setting, settings


def finalists_view(found: Finalists) -> RenderableType:
    """Finalists, best mean first, and what may be concluded."""
    how = "repeated hold-out" if found.folds is None else f"{found.folds}-fold cross-validation"
    level = f"{100 * found.confidence:g} %"
    what = f"the best of each level of {found.parameter}" if found.parameter else "the best of the search"
    table = Table(
        title=Text(f"{found.study}: {what}, on {found.blocks} fresh splits and seeds ({how})"),
        caption=f"mean: of {found.blocks} trainings, with the {level} interval of each by itself; difference "
        f"from the best: {level} intervals that hold for all pairs at once (Tukey, blocks of splits, "
        f"{found.degrees_of_freedom} degrees of freedom)",
        title_justify="left",
        caption_justify="left",
    )
    heads = ("level",) if found.parameter else ()
    for head in (*heads, "trial"):
        table.add_column(head)
    for head in ("in the search", "mean", "spread", "interval", "gap", "difference", "time"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict")
    for finalist in found.finalists:
        table.add_row(*_finalist_cells(finalist, found))
    each = [f"{finalist.label}: {settings(finalist.parameters)}" for finalist in found.finalists]
    notes = [f"note: {line}" for line in found.missing]
    return Group(Text(), table, *map(Text, [*notes, "", *each, "", *_conclusions(found)]))


def _finalist_cells(finalist: Finalist, found: Finalists) -> list[str | Text]:
    level: list[str | Text] = [Text(finalist.level or "-")] if found.parameter else []
    return [
        *level,
        ", ".join(map(str, finalist.trials)),
        percent(finalist.search_accuracy),
        percent(finalist.mean),
        points(finalist.spread),
        between(finalist.interval),
        points(finalist.gap, signed=True),
        between(finalist.difference, signed=True),
        duration(finalist.seconds),
        _verdict(finalist, found),
    ]


def _verdict(finalist: Finalist, found: Finalists) -> str:
    words = []
    if finalist is found.finalists[0]:
        words.append("best mean")
    elif finalist.difference is not None:
        words.append("worse" if finalist.distinguished else "not distinguished")
    return ", ".join(words + ["cheapest"] * (finalist.cheapest and len(found.finalists) > 1))


def _conclusions(found: Finalists) -> list[str]:
    best = found.finalists[0]
    close = [each for each in found.finalists[1:] if not each.distinguished]
    lines = [f"chosen by the mean: {best.label}, {percent(best.mean)} (n = {found.blocks})"]
    if found.blocks < 2 or len(found.finalists) < 2:
        return [*lines, "a comparison needs two configurations and two splits or more"]
    lines += _caution(found)
    if close:
        names = ", ".join(each.label for each in close)
        cheap = next(each for each in found.finalists if each.cheapest)
        lines.append(f"not distinguished from it by these trainings, which does not say equal: {names}")
        lines.append(f"the cheapest of these: {cheap.label}, {duration(cheap.seconds)} a training")
    else:
        lines.append("distinguished from all others")
    gaps = sum(each.gap for each in found.finalists) / len(found.finalists)
    lines.append(
        f"mean gap between the score in the search and here: {points(gaps, signed=True)} points, of which "
        "selection is a part (and a fixed split against fresh ones another)"
    )
    return lines


def _caution(found: Finalists) -> list[str]:
    """What the intervals are not about."""
    if found.folds is None:
        return ["intervals are about other seeds and splits of the same images, not about other images"]
    return [
        "folds share most of their training images, so that intervals of a cross-validation are approximate"
    ]


def ablation_view(found: Ablation) -> RenderableType:
    """The steps of an ablation in two tables: into the base, and out of the winner."""
    ahead = [step for step in found.steps if step.kind in ("base", "base with", "winner")]
    back = [step for step in found.steps if step.kind in ("winner", "winner without")]
    parts: list[RenderableType] = [Text(), _steps("from the base", "the base", ahead, found)]
    if len(back) > 1:
        parts += [Text(), _steps("from the winner", "the winner", back, found)]
    parts += [Text(f"note: {line}") for line in found.missing]
    return Group(*parts)


def _steps(title: str, reference: str, steps: Sequence[Step], found: Ablation) -> Table:
    level = f"{100 * found.confidence:g} %"
    table = Table(
        title=Text(f"{found.plan}: {title} ({found.blocks} fresh splits and seeds)"),
        caption=f"difference from {reference}, with {level} intervals that hold for all pairs at once "
        f"(Tukey, blocks of splits, {found.degrees_of_freedom} degrees of freedom)",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("configuration", overflow="fold")
    for head in ("mean", "spread", "difference", "interval", "time", "multiply-adds"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("changed", overflow="fold")
    mean_of = {step.kind: step.mean for step in found.steps}
    for step in steps:
        base = mean_of.get("winner" if step.kind == "winner without" else "base")
        itself = step.kind == "base" or (step.kind == "winner" and title == "from the winner")
        difference = None if itself or base is None else step.mean - base
        table.add_row(
            Text(step.label),
            percent(step.mean),
            points(step.spread),
            points(difference, signed=True),
            "-" if itself else between(step.difference, signed=True),
            duration(step.seconds),
            large(step.multiply_adds),
            Text("" if itself else _changes(step.changes)),
        )
    return table


def _changes(changes: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(
        f"{path.split('.', 1)[-1]} {setting(old)} to {setting(new)}"
        for path, (old, new) in changes.items()
        if old is not None and new is not None
    )


def points(value: float | None, signed: bool = False) -> str:
    """A difference or spread of accuracies in percentage points."""
    if value is None:
        return "-"
    return f"{100 * value:+.2f}" if signed else f"{100 * value:.2f}"


def between(interval: Interval | None, signed: bool = False) -> str:
    """An interval of accuracies, or of their differences, in percentage points."""
    if interval is None:
        return "-"
    return f"{points(interval.low, signed)} to {points(interval.high, signed)}"


def large(count: int | None) -> str:
    """A large count in three digits: 412 k, 38.7 M."""
    if count is None:
        return "-"
    unit, name = next(((u, n) for u, n in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if count >= u), (1, ""))
    return f"{count / unit:.3g}{name}"
