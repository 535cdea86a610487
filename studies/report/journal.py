"""The journal: every trial with its settings, curve, result, observations and what the author wrote of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup
from optuna.trial import FrozenTrial, TrialState

from spaces.ablation import leaves
from studies.notes import written_note
from studies.observations import Observation, observe
from studies.record import Outcome, curve_of, history_of, outcome_of, setup_of
from studies.study import SearchStudy
from studies.text import duration, setting

_WIDTH, _HEIGHT = 220, 56


@dataclass(frozen=True)
class JournalEntry:
    """One attempt."""

    number: int
    state: str
    accuracy: str
    differences: tuple[tuple[str, str, str], ...]
    """Path, the base's setting, its own."""
    same: tuple[str, ...]
    """Parameters with the base's setting."""
    result: tuple[str, ...]
    observations: tuple[Observation, ...]
    val_points: str
    """The curve of validation accuracy as points of an SVG line in a box of 220 by 56."""
    train_points: str
    note: Markup
    """The author's words as HTML."""


def journal_of(study: SearchStudy) -> list[JournalEntry]:
    """All attempts that make sense, in the order of their numbers."""
    trials = study.evidence()
    base = leaves(study.space.base.tree())
    top = max((value for trial in trials for value in curve_of(trial)), default=1.0) or 1.0
    return [_entry(study, trial, base, top) for trial in trials]


def _entry(study: SearchStudy, trial: FrozenTrial, base: dict[str, Any], top: float) -> JournalEntry:
    setup, outcome, history = setup_of(trial), outcome_of(trial), history_of(trial)
    own = leaves(setup.configuration) if setup else dict(trial.params)
    differing = [path for path in dict.fromkeys([*base, *own]) if setup and base.get(path) != own.get(path)]
    differences = tuple((path, _word(base.get(path)), _word(own.get(path))) for path in differing)
    if setup is None:
        differences = tuple((path, "", _word(value)) for path, value in own.items())
    same = tuple(n for n in trial.params if not any(_is_of(p, n.partition("@")[0]) for p in differing))
    train = [value for value in history.train_accuracy if value is not None]
    return JournalEntry(
        number=trial.number,
        state=outcome.reason if outcome else trial.state.name.lower(),
        accuracy="" if trial.value is None else f"{100 * trial.value:.2f} %",
        differences=differences,
        same=same if setup else (),
        result=tuple(_result(trial, outcome)),
        observations=tuple(observe(trial, len(study.data.classes))),
        val_points=_points(curve_of(trial), max(study.epochs, len(curve_of(trial))), top),
        train_points=_points(train, max(study.epochs, len(train)), top),
        note=note_html(written_note(study, trial)),
    )


def _is_of(path: str, parameter: str) -> bool:
    return f"{path}.".startswith(f"{parameter}.") or parameter == "preset"


def _word(value: Any) -> str:
    return "-" if value is None else setting(value)


def _result(trial: FrozenTrial, outcome: Outcome | None) -> list[str]:
    if outcome is None:
        return []
    epochs = len(curve_of(trial))
    found = [f"{epochs} epoch(s) in {duration(outcome.seconds)}"]
    if outcome.best_accuracy is not None:
        found.append(f"best epoch {outcome.best_epoch}: {100 * outcome.best_accuracy:.2f} %")
    if outcome.tta_accuracy is not None:
        found.append(f"with test-time augmentation {100 * outcome.tta_accuracy:.2f} %")
    if outcome.parameters:
        found.append(f"{outcome.parameters:,} parameters")
    if trial.state == TrialState.COMPLETE and outcome.epoch != epochs:
        found.append(f"value of epoch {outcome.epoch}")
    return found


def _points(values: Sequence[float], epochs: int, top: float) -> str:
    """Points of an SVG line, 3 pixels inside the box; a training accuracy above ``top`` is cut off there."""
    across, up = (_WIDTH - 6) / max(epochs - 1, 1), (_HEIGHT - 6) / top
    pairs = [(3 + i * across, _HEIGHT - 3 - up * min(value, top)) for i, value in enumerate(values)]
    if len(pairs) == 1:  # a line of one point would be invisible
        pairs.append((pairs[0][0] + 3, pairs[0][1]))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def note_html(markdown: str) -> Markup:
    """Markdown as HTML, in which HTML is shown as text, pictures are left out and links only lead to the web:
    nothing in a note is run or loaded."""
    renderer = (
        MarkdownIt("commonmark", {"html": False})
        .enable("table")
        .disable(["image", "html_block", "html_inline"])
    )
    return Markup(renderer.render(markdown)) if markdown.strip() else Markup("")
