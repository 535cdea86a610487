"""Notes on studies and trials, in Markdown: the very ones that optuna-dashboard shows and edits.

A note is a person's, except what stands between two marker lines, which this program writes anew whenever
there is something new to say. optuna-dashboard renders HTML in notes: whatever is put into a generated note
and comes from elsewhere (names of studies, classes, files; error messages) goes through ``escape_markdown``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna_dashboard import get_note, save_note

from spaces.text import brief, plain_letters
from studies.base import Study
from studies.storage import locked, study_lock

BEGIN = "[//]: # (cifar-search writes from here to the end mark; write above or below)"
END = "[//]: # (cifar-search: end mark)"
LONGEST_TEXT = 20_000
"""Characters that are added to a note at once."""
_LINE = rf"(?!{re.escape(BEGIN)}$).*\n"
_GENERATED = re.compile(rf"^{re.escape(BEGIN)}\n(?:{_LINE})*?{re.escape(END)}$", re.MULTILINE)
"""A pair of markers with no third between them: an end that someone deleted never swallows their words."""
_SPECIAL = re.compile(r"[\\`*_{}\[\]<>|~$&:@^!\"]|(?<=www)\.", re.IGNORECASE)
_LIST_OR_HEADING = re.compile(r"^(\d*)([-+=#.)])")


def note_of(study: Study, trial: FrozenTrial | None = None) -> str:
    """The note on the study, or on one of its trials: all of it, generated part and person's; "" for none."""
    note: str = get_note(_noted(study, trial))
    return note


def written_note(study: Study, trial: FrozenTrial | None = None) -> str:
    """What people wrote into the note: all but the generated part."""
    parts = _GENERATED.split(note_of(study, trial))
    return "\n\n".join(part.strip() for part in parts if part.strip())


def add_note(study: Study, text: str, trial: FrozenTrial | None = None) -> None:
    """Append a person's words, below a line with the date, to the note.

    Raises:
        ValueError: if the text is blank, too long, or no valid Unicode.
    """
    words = check_text(text)
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    with study_lock(study.storage, study.study_id):
        there = note_of(study, trial).rstrip()
        _save(study, trial, (there + "\n\n" if there else "") + f"**{date}**\n\n{words}\n")


def check_text(text: str) -> str:
    """The text of a note without blank ends.

    Raises:
        ValueError: if it is blank, too long, or no valid Unicode.
    """
    words = text.strip()
    if not words or len(words) > LONGEST_TEXT:
        raise ValueError(f"a note must have 1 to {LONGEST_TEXT} characters, but got {len(words)}")
    if re.search("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff]", words.replace("\r\n", "\n")):
        raise ValueError(f"a note must be text without control characters, but got {brief(words)}")
    return words.replace("\r\n", "\n")


def set_generated(study: Study, markdown: str, trial: FrozenTrial | None = None) -> None:
    """Put ``markdown`` in the place of the note's generated part; what people wrote stays as it is.

    The part stands at the end of a note that has none yet. A note that says the same already is not written,
    so that who edits it meanwhile is not told that it changed.
    """
    lines = [line for line in markdown.strip().splitlines() if line.strip() not in (BEGIN, END)]
    part = "\n".join([BEGIN, "", *lines, "", END])

    def put() -> None:
        there = note_of(study, trial)
        if _GENERATED.search(there):
            note = _GENERATED.sub(lambda _: part, there, count=1)
        else:
            note = f"{there.rstrip()}\n\n{part}\n" if there.strip() else f"{part}\n"
        if note != there:
            _save(study, trial, note)

    locked(study.storage, study.study_id, put)


def escape_markdown(text: object) -> str:
    """The text as one line of Markdown that shows it literally: no markup, no HTML, no link, no formula."""
    line = " ".join(plain_letters(str(text)).split())
    escaped = _SPECIAL.sub(lambda found: "\\" + found[0], line)
    return _LIST_OR_HEADING.sub(r"\1\\\2", escaped)


@dataclass(frozen=True)
class _Noted:
    """What optuna-dashboard asks of a trial; making Optuna's own ``Trial`` would call the sampler."""

    study: optuna.Study
    storage: optuna.storages.BaseStorage
    _trial_id: int


def _noted(study: Study, trial: FrozenTrial | None) -> Any:
    return study.optuna if trial is None else _Noted(study.optuna, study.optuna._storage, trial._trial_id)


def _save(study: Study, trial: FrozenTrial | None, note: str) -> None:
    """Save the note with its version at once, so that nobody edits the one for the other's."""
    with study.together():
        save_note(_noted(study, trial), note)
