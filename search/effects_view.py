"""How a study's effects look on screen: what was confirmed, the levels, importances, heat maps, what is open.

Names and levels come from users: they are shown as ``Text``, so that nothing in them is read as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from studies.effects import Effects, LevelEffect, ParameterEffect
from studies.finalists import Finalist
from studies.importance import Importances
from studies.interactions import Cell, Interaction
from studies.statistics import LEAST_RESAMPLED, Interval
from studies.text import duration, percent, sparkline

MOST_IMPORTANCES = 15
"""Rows of the table of importances."""


def effects_view(effects: Effects) -> RenderableType:
    """All that is known of a study's effects, and what to type next."""
    parts: list[RenderableType] = [Text(f"question: {effects.question}"), Text(_scope(effects))]
    for effect in effects.parameters:
        if effect.confirmed:
            parts += [Text(), *_confirmed(effect)]
        parts += [Text(), _levels(effects, effect)]
    if effects.parameters:
        parts.append(Text(_about_intervals(effects)))
    parts += [Text(), *_importances(effects.importances)]
    for interaction in effects.interactions:
        parts += [Text(), _heat_map(interaction)]
    return Group(*parts, *_closing(effects))


def _scope(effects: Effects) -> str:
    kinds = {
        "balanced": "a balanced comparison, the same number of trials for each level",
        "grid": "a grid, the same number of trials for each point",
        "free": "a free search",
    }
    total = "unlimited" if effects.total is None else effects.total
    return (
        f"{effects.study}: {kinds[effects.sampling]}; {effects.closed} of {total} trials closed, "
        f"{effects.completed} completed {effects.epochs} epochs or stopped early; accuracy on "
        f"{effects.val_images} validation images{_sampling_error(effects)}"
    )


def _sampling_error(effects: Effects) -> str:
    if effects.standard_error is None:
        return ""
    return f", whose number alone makes a standard error of {100 * effects.standard_error:.2f} points"


def _table(title: str, columns: Iterable[str], left: int = 1, caption: str | None = None) -> Table:
    """A table whose first ``left`` columns are words, and whose others are numbers."""
    table = Table(
        title=Text(title, "italic"),
        caption=Text(caption, "dim italic") if caption else None,
        title_justify="left",
        caption_justify="left",
    )
    for index, column in enumerate(columns):
        if index < left:
            table.add_column(Text(column), overflow="fold")
        else:
            table.add_column(Text(column), justify="right")
    return table


def _points(interval: Interval | None, signed: bool = False) -> str:
    """An interval of accuracies, or of differences of them, in percentage points."""
    if interval is None:
        return "-"
    sign = "+" if signed else ""
    return f"{100 * interval.low:{sign}.2f} to {100 * interval.high:{sign}.2f}"


def _confirmed(effect: ParameterEffect) -> Iterable[RenderableType]:
    """The answer: levels by the mean of the repetitions, the best first."""
    found = sorted(
        (level.confirmed for level in effect.levels if level.confirmed), key=lambda finalist: -finalist.mean
    )
    table = _table(
        f"{effect.parameter}, confirmed: the best of each level {_repeated(effect)}",
        ("level", "mean ± sd", "runs", "95 % of the mean", "in the search", "minus the best", "so", "time"),
        caption='"minus the best": 95 % intervals in points, of all pairs at once (Tukey, randomized '
        "blocks), which allow for the best having been picked from the same runs. All of it is about other "
        "seeds and splits of these images.",
    )
    for finalist in found:
        table.add_row(*_confirmed_cells(finalist, finalist is found[0]))
    yield Text(_answer(effect.parameter, found), "bold")
    yield table
    lacking = [level.level for level in effect.levels if level.confirmed is None]
    if lacking:
        yield Text(f"not confirmed: {', '.join(lacking)}")


def _repeated(effect: ParameterEffect) -> str:
    if effect.folds is None:
        return f"on {effect.blocks} fresh seed(s) and split(s)"
    return f"in {effect.blocks} parts of {effect.folds}-fold cross-validation (its intervals are approximate)"


def _confirmed_cells(finalist: Finalist, best: bool) -> list[RenderableType]:
    spread = "" if finalist.spread is None else f" ± {100 * finalist.spread:.2f}"
    tested = "worse" if finalist.distinguished else "not distinguished"
    verdict = "best" if best else tested if finalist.difference else "not tested"
    return [
        Text(finalist.level or finalist.label),
        f"{percent(finalist.mean)}{spread}",
        str(len(finalist.accuracies)),
        _points(finalist.interval),
        percent(finalist.search_accuracy),
        _points(finalist.difference, signed=True),
        verdict + (", cheapest" if finalist.cheapest else ""),
        duration(finalist.seconds),
    ]


def _answer(parameter: str, found: Sequence[Finalist]) -> str:
    best, others = found[0], found[1:]
    level = best.level or best.label
    alike = [finalist.level or finalist.label for finalist in others if not finalist.distinguished]
    runs = f"{len(best.accuracies)} run(s)"
    if not others:
        return f"{parameter}: only {level} was confirmed: {percent(best.mean)}, mean of {runs}"
    if all(finalist.difference is None for finalist in others):
        return f"{parameter}: {level} has the best mean, {percent(best.mean)} of {runs}; nothing is tested"
    if not alike:
        return f"{parameter}: {level} is best: {percent(best.mean)}, mean of {runs}; all others are worse"
    return (
        f"{parameter}: {level} has the best mean, {percent(best.mean)} of {runs}, but is not distinguished "
        f"from {', '.join(alike)}"
    )


def _levels(effects: Effects, effect: ParameterEffect) -> Table:
    """One row for each level; columns that would be empty, or repeat the single run, are left out."""
    levels = effect.levels
    shown = {
        "trials": True,
        "completed": True,
        "pruned": any(level.pruned for level in levels),
        "diverged": any(level.diverged for level in levels),
        "failed": any(level.failed for level in levels),
        "best": True,
        "trial": True,
        "top quarter": _has_several(effect),
        "mean ± sd": _has_several(effect),
        "interval of the mean": any(level.interval for level in levels),
        f"epochs to {percent(effects.target)}": True,
        "area": True,
        "roughness": True,
    }
    several = "top quarter: mean of the better quarter of the completed; " if _has_several(effect) else ""
    caption = f"{several}epochs to, area and roughness: of the best trial's curve"
    columns = ["level", *(column for column, is_shown in shown.items() if is_shown)]
    table = _table(f"{effect.parameter}: {_how_compared(effects, effect)}", columns, caption=caption)
    for level in levels:
        cells = zip(_level_cells(level), shown.values(), strict=True)
        table.add_row(Text(level.level), *(cell for cell, is_shown in cells if is_shown))
    return table


def _has_several(effect: ParameterEffect) -> bool:
    return any(level.completed > 1 for level in effect.levels)


def _how_compared(effects: Effects, effect: ParameterEffect) -> str:
    if effect.sampling == "free" and effects.intervals_reason is None:
        return "drawn at random, with nothing tuned within the levels: their means are over all the rest"
    if effect.sampling == "free":
        return "described, not tested: a free search samples levels unevenly"
    if max(level.trials for level in effect.levels) < 2:
        return "one run for each level, so that a difference may be luck"
    budget = "equal budgets" if effect.equal_budget else "budgets still unequal"
    within = "crossed with all the rest" if effect.sampling == "grid" else "the rest tuned within each level"
    return f"{within}, {budget}; the best of single runs is flattered"


def _level_cells(level: LevelEffect) -> list[str]:
    figures = level.convergence
    spread = "" if level.spread is None else f" ± {100 * level.spread:.2f}"
    return [
        str(level.trials),
        str(level.completed),
        str(level.pruned),
        str(level.diverged),
        str(level.failed),
        percent(level.best),
        "-" if level.best_trial is None else str(level.best_trial),
        percent(level.top_quarter),
        percent(level.mean) + spread,
        _points(level.interval),
        str(figures.epochs_to_target or "-") if figures else "-",
        percent(figures.area if figures else None),
        percent(figures.roughness if figures else None),
    ]


def _about_intervals(effects: Effects) -> str:
    if effects.intervals_reason:
        return f"no intervals for levels: {effects.intervals_reason}"
    if not any(level.interval for effect in effects.parameters for level in effect.levels):
        return f"no intervals for levels: none has {LEAST_RESAMPLED} completed trials that differ"
    return (
        f"intervals: bootstrap-t of the mean of the completed trials of a level, where there are at least "
        f"{LEAST_RESAMPLED}; they hold with 95 % for all levels of a parameter together"
    )


def _importances(found: Importances) -> Iterable[RenderableType]:
    if found.reason:
        yield Text(f"no importances: {found.reason}")
        return
    table = _table(
        f"importance (PED-ANOVA): what sets the best {found.best} of {found.trials} completed trials apart",
        ("parameter", "share", "resampled mean ± sd", "first in"),
        caption=f"resampled: over {found.resamples} resamples of the trials; it says how steady the share "
        "is, and is no interval" + ("; five of the best or more are advised" if found.best < 5 else ""),
    )
    table.add_column("", justify="left")
    for one in found.parameters[:MOST_IMPORTANCES]:
        table.add_row(
            Text(one.parameter),
            f"{100 * one.share:.0f} %",
            f"{100 * one.mean:.0f} ± {100 * one.spread:.0f} %",
            f"{100 * one.first:.0f} %",
            "▇" * round(20 * one.share) or "▏",
        )
    yield table
    if len(found.parameters) > MOST_IMPORTANCES:
        yield Text(f"and {len(found.parameters) - MOST_IMPORTANCES} more, each with a smaller share")


def _heat_map(interaction: Interaction) -> Table:
    means = [cell.mean for row in interaction.cells for cell in row if cell.mean is not None]
    low, high = min(means), max(means)
    table = _table(
        f"{interaction.row_parameter} (rows) by {interaction.column_parameter} (columns)",
        ("", *interaction.columns),
        caption=f"mean of n completed trials, and the best; from {percent(low)} (▁) to {percent(high)} (█)",
    )
    for label, cells in zip(interaction.rows, interaction.cells, strict=True):
        table.add_row(Text(label), *(_heat(cell, low, high) for cell in cells))
    return table


def _heat(cell: Cell, low: float, high: float) -> Text:
    """One cell: a bar and figures that do without colour, on a background that goes with the bar."""
    if cell.mean is None:
        return Text("·\nn 0", "dim")
    height = (cell.mean - low) / (high - low) if high > low else 1.0
    shade = Style(color="black", bgcolor=f"#{_mix(height)}")
    return Text(
        f"{sparkline([height])} {percent(cell.mean)}\nbest {percent(cell.best)}, n {cell.trials}", shade
    )


def _mix(height: float) -> str:
    """From light grey (0) to green (1), both light enough for black letters."""
    low, high = (0xE6, 0xE6, 0xE6), (0x5C, 0xC8, 0x7A)
    return "".join(f"{round(a + (b - a) * height):02x}" for a, b in zip(low, high, strict=True))


def _closing(effects: Effects) -> Iterable[RenderableType]:
    if effects.missing:
        yield Text()
    for note in effects.missing:
        yield Text(f"note: {note}")


def next_lines(effects: Effects) -> list[str]:
    """What another command would settle, and the commands, each on a line that can be copied."""
    lines = [line for each in effects.next for line in (f"to settle {each.why}", f"  {each.command}")]
    return lines or ["nothing that another command would settle"]
