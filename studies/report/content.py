"""What a report consists of: its studies with their sections and journals, and their comparison."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from markupsafe import Markup
from optuna.storages import RDBStorage

from studies.figures import Chart, progress_chart, progress_of
from studies.figures.chart import Columns, table_of
from studies.importance import RESAMPLES
from studies.looks import looks_of
from studies.notes import written_note
from studies.record import PLAN
from studies.report.commands import Commands
from studies.report.journal import JournalEntry, journal_of, note_html
from studies.report.sections import Section, Subject, sections_of
from studies.study import SearchStudy
from studies.urls import masked


@dataclass(frozen=True)
class StudyPart:
    """A study's part of the report."""

    name: str
    slug: str
    """Its name in file names and anchors: letters, digits, dots, hyphens."""
    question: str
    note: Markup
    sections: tuple[Section, ...]
    journal: tuple[JournalEntry, ...]


@dataclass(frozen=True)
class Report:
    """All of it."""

    title: str
    date: str
    version: str
    storage: str
    """Masked."""
    comparison: Section | None
    """Of several studies."""
    studies: tuple[StudyPart, ...]

    def charts(self) -> list[tuple[str, Chart]]:
        """All charts, each with a name of its own for files and anchors."""
        found = [(f"comparison-{c.name}", c) for c in (self.comparison.charts if self.comparison else ())]
        for study in self.studies:
            found += [(f"{study.slug}-{c.name}", c) for section in study.sections for c in section.charts]
        return found


def make_report(
    storage: RDBStorage,
    names: Sequence[str],
    storage_url: str,
    default_url: str,
    resamples: int = RESAMPLES,
) -> Report:
    """Read studies and put together what there is to say.

    Args:
        storage: open to read.
        names: of searches; their finalists and ablations are found beside them.
        storage_url: as the commands are to name it; a password is never shown.
        default_url: what the commands need not name.
        resamples: for the spread of importances.

    Raises:
        ValueError: for a name twice, an unknown study, or one that is no search.
    """
    twice = {name for name in names if list(names).count(name) > 1}
    if twice:
        raise ValueError(f"STUDY: each study must be named once, but got {', '.join(sorted(twice))} again")
    studies = [_open(storage, name) for name in names]
    subjects = [Subject(s, Commands(s, storage_url, default_url), resamples) for s in studies]
    slugs = unique_slugs(names)
    parts = [
        StudyPart(
            name=subject.study.name,
            slug=slug,
            question=subject.study.space.question,
            note=note_html(written_note(subject.study)),
            sections=tuple(sections_of(subject)),
            journal=tuple(journal_of(subject.study)),
        )
        for subject, slug in zip(subjects, slugs, strict=True)
    ]
    return Report(
        title=names[0] if len(names) == 1 else f"{len(names)} studies compared",
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("cifar-search"),
        storage=masked(storage_url),
        comparison=_comparison(subjects) if len(subjects) > 1 else None,
        studies=tuple(parts),
    )


def _open(storage: RDBStorage, name: str) -> SearchStudy:
    try:
        return SearchStudy(storage, name)
    except ValueError:
        parent, _, kind = name.rpartition("/")
        study = next((s for s in storage.get_all_studies() if s.study_name == name), None)
        if study is not None and PLAN in study.user_attrs:
            raise ValueError(
                f"study {name!r} holds the runs of {kind}: they are in the report of the search, {parent!r}"
            ) from None
        raise


def unique_slugs(names: Iterable[str]) -> list[str]:
    """A name for files and anchors for each study name: safe everywhere, and no two alike."""
    found = ["comparison"]  # which the report itself uses
    for name in names:
        slug = re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:60].strip("-.") or "study"
        count = 1
        while (unique := slug if count == 1 else f"{slug}-{count}").lower() in map(str.lower, found):
            count += 1
        found.append(unique)
    return found[1:]


def _comparison(subjects: Sequence[Subject]) -> Section:
    progress = {subject.study.name: progress_of(subject.study) for subject in subjects}
    charts = [progress_chart(progress, "trials"), progress_chart(progress, "time")]
    columns: Columns = [
        ("study", "text"), ("space", "text"), ("data set", "text"), ("training images", "count"),
        ("epochs", "count"), ("trials", "count"), ("best run", "share"), ("repeated: mean", "share"),
        ("n", "count"), ("from", "share"), ("to", "share"), ("training time", "seconds"),
        ("looks at test", "count"),
    ]  # fmt: skip
    table = table_of(columns, [_compared(subject) for subject in subjects])
    return Section(
        "comparison", "The studies compared", _comparable(subjects), tables=(("", table),),
        charts=tuple(chart for chart in charts if chart),
    )  # fmt: skip


def _compared(subject: Subject) -> tuple[str | int | float | None, ...]:
    summary, found = subject.summary, subject.finalists
    best = found.finalists[0] if found else None
    interval = best.interval if best else None
    return (
        summary.name, summary.space, summary.dataset, summary.train_images, summary.epochs, summary.closed,
        summary.leaderboard[0].accuracy if summary.leaderboard else None, best.mean if best else None,
        len(best.accuracies) if best else None, interval.low if interval else None,
        interval.high if interval else None, summary.seconds_trained, len(looks_of(subject.study)),
    )  # fmt: skip


def _comparable(subjects: Sequence[Subject]) -> tuple[str, ...]:
    """What stands in the way of comparing the studies."""
    records = [subject.study.record for subject in subjects]
    found = ["The best of more trials is flattered by more; a best run is no answer, a repeated mean is."]
    if len({record.data.hash for record in records}) > 1:
        found.append("These studies are of different data: their accuracies cannot be compared.")
    elif len({record.split.hash for record in records}) > 1:
        found.append("These studies divided the data differently: they validate on different images.")
    if len({device for subject in subjects for device in subject.summary.device}) > 1:
        found.append("They ran on different devices: their training times cannot be compared.")
    return tuple(found)
