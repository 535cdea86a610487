"""The notes that our studies and trials open with, in Markdown.

They say what stays as it is, so that a note does not change under the hands of somebody who edits it: figures
that grow with a study are on the dashboard already.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.options import DEFAULT_STORAGE
from spaces.ablation import leaves
from spaces.config import Configuration
from spaces.space import built_in
from spaces.text import is_plain_text
from studies.base import Study
from studies.notes import escape_markdown
from studies.plan import ENTRY, PlanStudy
from studies.record import Outcome, StudyRecord, curve_of, outcome_of, reason_of, setup_of, text_of
from studies.study import SearchStudy
from studies.text import duration, percent, setting
from studies.urls import masked

LONGEST_CELL = 120
"""Characters of a value in a table."""
LONGEST_LINE = 90
"""Characters of a line of commands; the page scrolls sideways for a longer one."""
MOST_ROWS = 60
"""Rows of a table; the others are counted."""


def study_note(study: Study, storage_url: str) -> str:
    """What a study is about, and how to go on with it."""
    if isinstance(study, SearchStudy):
        return _search_note(study, storage_url)
    return _plan_note(study, storage_url) if isinstance(study, PlanStudy) else ""


def trial_note(study: Study, trial: FrozenTrial, observations: Sequence[str] = ()) -> str:
    """How an ended trial came out, and what it ran.

    Args:
        study: the study.
        trial: the trial.
        observations: what its curves show, in words.
    """
    parts = [_result(study, trial)]
    parts += [f"- {escape_markdown(line)}" for line in observations]
    setup = setup_of(trial)
    if setup is None:
        return "\n\n".join([*parts, "It ended before its settings were decided."])
    if isinstance(study, PlanStudy):
        label = text_of(trial, ENTRY)
        block = f"block {setup.repeat}, the same seed and split as for the others there"
        return "\n\n".join([*parts, f"Repeats {escape_markdown(label)} ({block}; seed {setup.seed})."])
    return "\n\n".join([*parts, *_differences(study, setup.configuration), f"Seed {setup.seed}."])


def _search_note(study: SearchStudy, storage_url: str) -> str:
    record, space = study.record, study.space
    rows = [(r.parameter, r.values, r.role, r.condition, r.base) for r in space.rows()]
    parts = [
        f"**Question:** {escape_markdown(space.question)}",
        _facts(_search_facts(study)),
        f"**Space {escape_markdown(record.space_name)}**: what is not in this table is fixed",
        _table(("parameter", "values", "role", "active if", "base"), rows),
    ]
    if space.levels:
        parts.append(f"Each {escape_markdown(space.balance)} gets the same number of trials.")
    parts.append("**How to go on**")
    parts.append(_commands(_search_commands(study, _where(storage_url))))
    return "\n\n".join(parts)


def _search_facts(study: SearchStudy) -> dict[str, str]:
    record = study.record
    split, (height, width, channels) = record.split, record.data.shape
    facts = {
        "data": f"{record.data.name}: {split.train_images} images to train, {split.val_images} to validate "
        f"(split by seed {split.seed}); {height}x{width}, {channels} channel(s), "
        f"{len(record.data.classes)} classes",
        "a full trial": f"{record.epochs} epochs in {record.precision}",
        "method": f"sampler {record.sampler}, pruner {record.pruner}, seed {record.seed}",
        "value": "validation accuracy (0 to 1) of one run; the test images are not opened",
    }
    if record.changes:
        facts["adapted"] = "; ".join(record.changes)
    return facts


def _search_commands(study: SearchStudy, where: list[str]) -> list[list[str]]:
    name = _word(study.name)
    return [
        ["cifar-search run", *_run_options(study.record, study.name), *where, "--trials TOTAL"],
        [f"cifar-search show {name}", *where],
        [f"cifar-search effects {name}", *where],
        [f"cifar-search confirm {name}", "--top 5", "--seeds 5", *where],
        [f"cifar-search ablate {name}", "--seeds 3", *where],
        [f"cifar-search export {name}", *where, "-o best.yaml"],
        [f"cifar-search report {name}", *where, "-o report.html"],
    ]


def _run_options(record: StudyRecord, name: str) -> list[str]:
    """What continues the study, given the space's file where the space is not built in."""
    space = record.space_name if record.space_name in built_in() else f"{record.space_name}.yaml"
    options: dict[str, object] = {
        "space": space,
        "study": name,
        "dataset": record.data.source or record.data.name,
        "image-size": record.data.image_size,
        "val-size": record.split.val_size,
        "train-size": record.split.train_size,
        "epochs": record.epochs,
        "seed": record.seed or None,
        "precision": record.precision,
        "sampler": None if record.sampler == "auto" else record.sampler,
        "pruner": record.pruner,
        "repeat": None if record.repeat == 1 else record.repeat,
    }
    return [f"--{key} {_word(value)}" for key, value in options.items() if value is not None]


def _plan_note(plan: PlanStudy, storage_url: str) -> str:
    record = plan.record
    what = "finalists repeated" if record.kind == "confirm" else "ablation"
    how = "repeated hold-out" if record.folds is None else f"{record.folds}-fold cross-validation"
    entries = plan.entries()
    of = f"study {escape_markdown(record.parent)}" if record.parent else "an exported configuration"
    parts = [
        f"**{what.capitalize()}** of {of}: fresh seeds and splits ({how}), "
        f"{record.epochs} epochs, no pruning.",
        f"**Question:** {escape_markdown(record.question)}",
        _table(("entry", "configuration"), [(entry.label, entry.fingerprint) for entry in entries]),
    ]
    if record.parent:
        parent, where = _word(record.parent), _where(storage_url)
        verb = "confirm" if record.kind == "confirm" else "ablate"
        folds = [f"--folds {record.folds}"] if record.folds else []
        commands = [
            [f"cifar-search {verb} {parent}", *folds, "--seeds N", *where],
            [f"cifar-search report {parent}", *where, "-o report.html"],
        ]
        parts += ["**How to go on**", _commands(commands)]
    return "\n\n".join(parts)


def _result(study: Study, trial: FrozenTrial) -> str:
    outcome = outcome_of(trial)
    line = f"**{escape_markdown(reason_of(trial))}**"
    if outcome is not None and trial.state == TrialState.COMPLETE:
        line += (
            f" with {percent(trial.value)} validation accuracy (one run) at epoch {outcome.epoch} of "
            f"{study.epochs}"
        )
    elif curve_of(trial):
        line += (
            f" after epoch {len(curve_of(trial))} of {study.epochs}, at {percent(curve_of(trial)[-1])} "
            "validation accuracy"
        )
    if outcome is not None and outcome.message.strip():
        line += f": {escape_markdown(_cut(outcome.message, 500))}"
    return "\n\n".join([line, *_cost(outcome)])


def _cost(outcome: Outcome | None) -> Iterable[str]:
    if outcome is None:
        return
    told = [duration(outcome.seconds)] if outcome.seconds else []
    told += [f"{outcome.parameters:,} parameters"] if outcome.parameters else []
    told += [f"{outcome.multiply_adds:,} multiply-adds an image"] if outcome.multiply_adds else []
    told += [f"on {outcome.device}"] if outcome.device else []
    if told:
        yield escape_markdown(", ".join(told))


def _differences(study: Study, configuration: Mapping[str, Any]) -> Iterable[str]:
    """The settings that are not the base's, as a table."""
    if not isinstance(study, SearchStudy):
        return
    base, here = leaves(study.space.base.tree()), leaves(_complete(configuration))
    paths = [path for path in dict.fromkeys([*base, *here]) if base.get(path, ...) != here.get(path, ...)]
    if not paths:
        yield "All settings are the base's."
        return
    yield _table(
        ("setting that differs", "base", "here"),
        [(path, _shown(base, path), _shown(here, path)) for path in paths],
    )


def _complete(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with the defaults of settings that are newer than it."""
    try:
        return Configuration.read(dict(configuration)).tree()
    except ValueError:  # of another version of this program
        return dict(configuration)


def _shown(settings: Mapping[str, Any], path: str) -> str:
    return setting(settings[path]) if path in settings else "absent"


def _facts(facts: Mapping[str, str]) -> str:
    return _table(("", ""), list(facts.items()))


def _cell(value: object) -> str:
    return escape_markdown(_cut(str(value), LONGEST_CELL)) or " "


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; every cell shows its text literally."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows[:MOST_ROWS]]
    if len(rows) > MOST_ROWS:
        lines.append(f"| and {len(rows) - MOST_ROWS} more |{' |' * (len(head) - 1)}")
    return "\n".join(lines)


def _commands(commands: Sequence[Sequence[str]]) -> str:
    """A block of code, a command after the other. Each line begins with our own word or an option, never with
    what somebody else wrote, so that none can end the block."""
    return "\n".join(["```sh", *(line for command in commands for line in _folded(command)), "```"])


def _folded(command: Sequence[str]) -> list[str]:
    """A command in lines of at most ``LONGEST_LINE`` characters, where its parts allow that."""
    lines = [command[0]]
    for part in command[1:]:
        if len(lines[-1]) + len(part) > LONGEST_LINE:
            lines[-1] += " \\"
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    return lines


def _where(storage_url: str) -> list[str]:
    """The option that names the storage; a URL with a password is left to the environment."""
    if storage_url == DEFAULT_STORAGE or masked(storage_url) != storage_url:
        return []
    return [f"--storage {_word(storage_url)}"]


def _word(value: object) -> str:
    """A word of a command line; what could not stand on one line is left to the reader."""
    text = str(value)
    return shlex.quote(text) if is_plain_text(text) else "..."


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
