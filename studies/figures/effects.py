"""Effects of parameters: levels, importances with their spread, and pairs of parameters as heat maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from studies.effects import Effects, LevelEffect, ParameterEffect
from studies.figures.chart import Chart, Columns, Table, table_of
from studies.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    accuracy_axis,
    new_figure,
    per_cent,
    plain,
    row_axis,
    rows_height,
    short,
)  # fmt: skip
from studies.importance import Importances
from studies.interactions import Interaction


def level_charts(effects: Effects) -> list[Chart]:
    """The levels of parameters: best, top quarter, mean, and the confirmed mean where there is one.

    A chart for each parameter that was compared; one for all that are only described.
    """
    shown = [effect for effect in effects.parameters if any(level.completed for level in effect.levels)]
    compared = [effect for effect in shown if effect.confirmed or effect.sampling != "free"]
    described = [effect for effect in shown if effect not in compared]
    groups = [[effect] for effect in compared] + ([described] if described else [])
    return [_levels(group, f"levels-{index}") for index, group in enumerate(groups, start=1)]


def _levels(effects: Sequence[ParameterEffect], name: str) -> Chart:
    rows = [(effect, level) for effect in effects for level in effect.levels]
    figure = new_figure(_level_title(effects), rows_height(len(rows), 30), "validation accuracy (%)")
    marks: Sequence[tuple[str, str, str, float, Callable[[LevelEffect], float | None]]] = (
        ("mean of completed", GREY, "line-ns-open", 0.0, lambda level: level.mean),
        ("mean of the top quarter", GREEN, "circle", 0.16, lambda level: level.top_quarter),
        ("best single run", ORANGE, "diamond", -0.16, lambda level: level.best),
    )
    for label, color, symbol, offset, value in marks:
        pairs = [(row, x) for row, (_, level) in enumerate(rows) if (x := value(level)) is not None]
        bars = _mean_bars([level for _, level in rows]) if label == "mean of completed" else None
        figure.add_scatter(
            x=[per_cent(x) for _, x in pairs], y=[row + offset for row, _ in pairs], name=label,
            mode="markers", error_x=bars,
            marker={"size": 9, "color": color, "symbol": symbol, "line": {"color": color, "width": 2}},
            hovertemplate=f"{label}: %{{x:.2f}} %<extra></extra>",
        )  # fmt: skip
    accuracy_axis(figure)
    _add_confirmed(figure, [level for _, level in rows])
    row_axis(figure, [_row_label(effect, level, len(effects) > 1) for effect, level in rows])
    for row, (effect, _) in enumerate(rows[1:], start=1):
        if effect is not rows[row - 1][0]:
            figure.add_hline(y=row - 0.5, line={"color": GREY, "width": 1})
    return Chart(name, figure, _level_table(rows), _level_caption(effects[0]))


def _level_title(effects: Sequence[ParameterEffect]) -> str:
    trials = max(sum(level.trials for level in effect.levels) for effect in effects)
    equal = "equal" if effects[0].equal_budget else "nearly equal"
    kinds = {"balanced": f"{equal} budget for each level", "grid": "a grid"}
    kind = kinds.get(effects[0].sampling, "described, not tested")
    of = effects[0].parameter if len(effects) == 1 else f"{len(effects)} parameters"
    return f"Levels of {of}: n = {trials} trials, one run each ({kind})"


def _row_label(effect: ParameterEffect, level: LevelEffect, with_parameter: bool) -> str:
    parameter = f"{effect.parameter.split('.')[-1]}: " if with_parameter else ""
    pruned = f", {level.pruned} pruned" if level.pruned else ""
    return f"{short(parameter + level.level)} (n = {level.trials}{pruned})"


def _mean_bars(all_levels: Sequence[LevelEffect]) -> dict[str, object] | None:
    levels = [level for level in all_levels if level.mean is not None]
    if not any(level.interval for level in levels):
        return None
    high = [per_cent(lv.interval.high - (lv.mean or 0)) if lv.interval else None for lv in levels]
    low = [per_cent((lv.mean or 0) - lv.interval.low) if lv.interval else None for lv in levels]
    return {"type": "data", "symmetric": False, "array": high, "arrayminus": low, "thickness": 1.5}


def _add_confirmed(figure: go.Figure, levels: Sequence[LevelEffect]) -> None:
    found = [(row, level.confirmed) for row, level in enumerate(levels) if level.confirmed]
    if not found:
        return
    high = [per_cent(f.interval.high - f.mean) if f.interval else None for _, f in found]
    low = [per_cent(f.mean - f.interval.low) if f.interval else None for _, f in found]
    figure.add_scatter(
        x=[per_cent(f.mean) for _, f in found], y=[row + 0.34 for row, _ in found], mode="markers",
        name=f"best of the level, repeated (n = {len(found[0][1].accuracies)} each)",
        marker={"size": 12, "color": VERMILION, "symbol": "square", "line": {"color": BLACK, "width": 1}},
        error_x={"type": "data", "symmetric": False, "array": high, "arrayminus": low, "thickness": 2.2},
        hovertemplate="repeated: %{x:.2f} %<extra></extra>",
    )  # fmt: skip


def _level_caption(effect: ParameterEffect) -> str:
    if effect.confirmed:
        return (
            "Squares, with the interval of each by itself: the best of each level, repeated on fresh seeds "
            "and splits. That is the answer; the rest is of single runs."
        )
    if effect.sampling == "free":
        return "Single runs. An adaptive search samples levels unevenly: this describes, and tests nothing."
    equal = "an equal" if effect.equal_budget else "an unequal"
    return f"Single runs, {equal} number for each level; the best of several is flattered."


def _level_table(rows_of: Sequence[tuple[ParameterEffect, LevelEffect]]) -> Table:
    rows = [
        (
            effect.parameter, level.level, level.trials, level.completed, level.pruned, level.diverged,
            level.failed, level.best, level.top_quarter, level.mean, level.spread,
            level.interval.low if level.interval else None,
            level.interval.high if level.interval else None,
            level.convergence.epochs_to_target if level.convergence else None,
            level.confirmed.mean if level.confirmed else None,
        )
        for effect, level in rows_of
    ]  # fmt: skip
    return table_of(
        [
            ("parameter", "text"), ("level", "text"), ("trials", "count"), ("completed", "count"),
            ("pruned", "count"), ("diverged", "count"), ("failed", "count"), ("best", "share"),
            ("top quarter", "share"), ("mean", "share"), ("standard deviation", "share"),
            ("interval from", "share"), ("interval to", "share"), ("epochs to target", "count"),
            ("mean when repeated", "share"),
        ],
        rows,
    )  # fmt: skip


def importance_chart(importances: Importances) -> Chart | None:
    """Shares of all parameters with their spread over resamples; None where there are too few trials."""
    found = importances.parameters
    if not found:
        return None
    title = f"Importance (PED-ANOVA): n = {importances.trials} completed trials"
    figure = new_figure(title, rows_height(len(found)), "share (%)")
    figure.add_bar(
        x=[per_cent(each.share) for each in found], y=list(range(len(found))), orientation="h",
        marker={"color": BLUE}, name="share", hovertemplate="%{x:.1f} %<extra></extra>", showlegend=False,
        error_x={"type": "data", "array": [per_cent(each.spread) for each in found], "color": BLACK},
    )  # fmt: skip
    row_axis(figure, [short(each.parameter) for each in found])
    rows = [(each.parameter, each.share, each.mean, each.spread, each.first) for each in found]
    columns: Columns = [
        ("parameter", "text"), ("share", "share"), ("mean of resamples", "share"),
        ("standard deviation", "share"), ("first in resamples", "share"),
    ]  # fmt: skip
    caption = (
        f"What tells the best {importances.best} trials from all. Bars: standard deviation over "
        f"{importances.resamples} resamples of the trials: how steady the figures are, not an interval."
    )
    return Chart("importances", figure, table_of(columns, rows), caption)


def interaction_charts(interactions: Sequence[Interaction]) -> list[Chart]:
    """Pairs of parameters as heat maps of the mean accuracy, with the number of trials."""
    return [_heat_map(pair, f"pair-{index}") for index, pair in enumerate(interactions, start=1)]


def _heat_map(pair: Interaction, name: str) -> Chart:
    trials = sum(cell.trials for row in pair.cells for cell in row)
    title = f"{pair.row_parameter} by {pair.column_parameter}: n = {trials} completed trials, one run each"
    height = 170 + 44 * len(pair.rows)
    figure = new_figure(title, height, plain(pair.column_parameter), plain(pair.row_parameter))
    words = [
        [f"{100 * cell.mean:.1f} (n = {cell.trials})" if cell.mean is not None else "" for cell in row]
        for row in pair.cells
    ]
    figure.add_heatmap(
        z=[[per_cent(cell.mean) for cell in row] for row in pair.cells], text=words, texttemplate="%{text}",
        colorscale="Cividis", colorbar={"title": {"text": "mean (%)"}, "thickness": 14}, xgap=2, ygap=2,
        hovertemplate="mean %{text}<extra></extra>", hoverongaps=False,
    )  # fmt: skip
    ticks = {"tickmode": "array", "showgrid": False, "zeroline": False}
    for update, labels in ((figure.update_xaxes, pair.columns), (figure.update_yaxes, pair.rows)):
        update(**ticks, tickvals=list(range(len(labels))), ticktext=[short(label, 24) for label in labels])
    figure.update_yaxes(autorange="reversed")
    rows = [
        (row, column, cell.trials, cell.mean, cell.best)
        for row, cells in zip(pair.rows, pair.cells, strict=True)
        for column, cell in zip(pair.columns, cells, strict=True)
    ]
    columns: Columns = [
        (pair.row_parameter, "text"), (pair.column_parameter, "text"), ("completed", "count"),
        ("mean", "share"), ("best", "share"),
    ]  # fmt: skip
    caption = "Mean validation accuracy (%) of the completed trials; empty where there is none. Descriptive."
    return Chart(name, figure, table_of(columns, rows), caption)
