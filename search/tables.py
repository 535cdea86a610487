"""The tables that a study and a space are shown as."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from studies.summary import Entry, Level, Summary, left_out
from studies.text import duration, percent, settings, sparkline
from studies.urls import masked

SHOWN = 10
"""Rows of the leaderboard."""


def summary_view(summary: Summary) -> RenderableType:
    """All that is known of a study: leaderboard, levels, importances, how trials ended, time."""
    parts: list[RenderableType] = [Text(), _leaderboard(summary)]
    if summary.levels:
        parts += [Text(), _levels(summary.levels)]
    if summary.importances:
        parts += [Text(), _importances(summary)]
    parts += [Text(), *(Text(line) for line in closing_lines(summary))]
    return Group(*parts)


def _leaderboard(summary: Summary) -> RenderableType:
    if not summary.leaderboard:
        return Text(f"study {summary.name!r} has no completed trial yet")
    error = summary.standard_error or 0.0
    table = Table(
        title=Text(f"{summary.name}: best of {len(summary.leaderboard)} completed configurations"),
        caption=f"validation accuracy on {summary.val_images} images; the size of that sample alone makes a "
        f"standard error of {100 * error:.2f} points",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("rank", justify="right")
    table.add_column("trial", justify="right")
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column("runs", justify="right")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for rank, entry in enumerate(summary.leaderboard[:SHOWN], start=1):
        table.add_row(*_entry_cells(rank, entry))
    return table


def _entry_cells(rank: int, entry: Entry) -> list[str | Text]:
    spread = f" ± {100 * entry.spread:.2f}" if entry.spread is not None else ""
    trials = ", ".join(str(number) for number in entry.trials)
    return [
        str(rank),
        trials,
        percent(entry.accuracy) + spread,
        str(entry.runs),
        duration(entry.seconds),
        Text(settings(entry.parameters)),  # which users name; as a string it would be markup
    ]


def _levels(levels: tuple[Level, ...]) -> RenderableType:
    table = Table(
        title="by level (described, not tested: a search samples levels unevenly)", title_justify="left"
    )
    for name in ("parameter", "level"):
        table.add_column(name)
    for name in ("trials", "pruned", "best", "mean of top quarter"):
        table.add_column(name, justify="right")
    shown = None
    for level in levels:
        table.add_row(
            Text(level.parameter if level.parameter != shown else ""),
            Text(level.level),
            str(level.trials),
            str(level.pruned),
            percent(level.best),
            percent(level.top_quarter),
        )
        shown = level.parameter
    return table


def _importances(summary: Summary) -> RenderableType:
    completed = sum(entry.runs for entry in summary.leaderboard)
    table = Table(title=f"importance (PED-ANOVA over {completed} completed trials)", title_justify="left")
    table.add_column("parameter")
    table.add_column("share", justify="right")
    table.add_column("")
    for name, share in summary.importances.items():
        table.add_row(Text(name), f"{100 * share:.0f} %", sparkline([share], 1) + "▇" * round(20 * share))
    return table


def closing_lines(summary: Summary) -> list[str]:
    """What happened to the trials, and what it cost."""
    ended = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.ended.items()))
    lines = [f"{summary.closed} of {summary.total or 'unlimited'} trials closed: {ended or 'none'}"]
    if summary.repeated:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.repeated.items()))
        lines.append(f"further attempts: {counts}")
    for given in summary.given_up:
        lines.append(
            f"slot {given.slot} was given up after {given.attempts} attempt(s), the last one trial "
            f"{given.trial}: {given.reason}{f': {given.message}' if given.message else ''}"
        )
    lines += left_out(summary)
    lines.append(
        f"training took {duration(summary.seconds_trained)} in all; pruning saved about "
        f"{duration(summary.seconds_saved)}"
    )
    if len(summary.environments) > 1:
        lines += [f"note: {count} of them trained on {on}" for on, count in summary.environments.items()]
    lines += [f"note: steps were launched operation by operation: {reason}" for reason in summary.eager]
    return lines + [f"note: {notice}" for notice in summary.notices]


def next_commands(summary: Summary, storage_url: str, default_url: str) -> list[str]:
    """What to type after a search."""
    repeat = [["confirm", "--top", "5", "--seeds", "5"]] if summary.leaderboard else []
    after = [["show"], *repeat, ["report", "-o", "report.html"]]
    words = [[command, summary.name, *options] for command, *options in after]
    return [command_line(each, storage_url, default_url) for each in (*words, ["dashboard"])]


def command_line(words: Sequence[str], storage_url: str, default_url: str) -> str:
    """A command of this program as it can be typed; a URL with a password is left to the environment."""
    typed = " ".join(["cifar-search", *(shlex.quote(word) for word in words)])
    if storage_url == default_url:
        return typed
    secret = masked(storage_url) != storage_url
    url = '"$CIFAR_SEARCH_STORAGE"' if secret else shlex.quote(storage_url)
    return f"{typed} --storage {url}"
