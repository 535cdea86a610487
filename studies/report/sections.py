"""What the sections of a report say: facts, tables and charts of a study, or what would fill them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from optuna.trial import FrozenTrial

from studies.ablation import Ablation, ablation_of
from studies.effects import Effects, effects_of
from studies.figures import (
    Chart,
    Table,
    ablation_chart,
    confusion_chart,
    cost_chart,
    curves_chart,
    finalists_chart,
    importance_chart,
    interaction_charts,
    leaderboard_chart,
    level_charts,
    loss_chart,
    progress_chart,
    progress_of,
    pruning_chart,
)  # fmt: skip
from studies.figures.chart import Columns, table_of
from studies.figures.confusion import added
from studies.figures.cost import priced
from studies.figures.pruning import hits
from studies.finalists import TOP, Finalists, finalists_of
from studies.looks import looks_of
from studies.plan import PlanStudy
from studies.record import confusion_of, outcome_of, setup_of
from studies.report.commands import Commands
from studies.statistics import Interval
from studies.study import SearchStudy
from studies.summary import Summary, left_out, summarize
from studies.text import duration

IN_FRONT = 5
"""Trials in front of the learning curves, where there are no finalists."""
SHOWN_ROWS = 20
"""Rows of a table on the page; the CSV has all."""


@dataclass(frozen=True)
class Section:
    """One section of a study's report."""

    id: str
    title: str
    lead: tuple[str, ...] = ()
    """Paragraphs."""
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[tuple[str, Table], ...] = ()
    """Each with its caption."""
    charts: tuple[Chart, ...] = ()
    details: tuple[tuple[str, str], ...] = ()
    """Long texts to unfold, each with its title."""
    commands: tuple[str, ...] = ()
    """What to type."""


@dataclass(frozen=True)
class Subject:
    """A study with all that its sections draw on, read once."""

    study: SearchStudy
    commands: Commands
    resamples: int

    @cached_property
    def trials(self) -> list[FrozenTrial]:
        return self.study.evidence()

    @cached_property
    def by_number(self) -> dict[int, FrozenTrial]:
        return {trial.number: trial for trial in self.trials}

    @cached_property
    def summary(self) -> Summary:
        return summarize(self.study)

    @cached_property
    def all_finalists(self) -> list[Finalists]:
        """Every choice that was repeated: the best of all, and the best of the levels of parameters."""
        wanted = [TOP, *(parameter.name for parameter in self.study.space.parameters)]
        found = (finalists_of(self.study.storage, self.study.name, name) for name in wanted)
        return [each for each in found if each]

    @cached_property
    def finalists(self) -> Finalists | None:
        return next(iter(self.all_finalists), None)

    @cached_property
    def ablation(self) -> Ablation | None:
        return ablation_of(self.study.storage, self.study.name)

    @cached_property
    def effects(self) -> Effects:
        found, ablation = self.all_finalists, self.ablation
        return effects_of(self.study, *found, ablation=ablation, resamples=self.resamples)

    @property
    def val_images(self) -> int:
        return self.study.record.split.val_images


def sections_of(subject: Subject) -> list[Section]:
    """All sections but the journal, in the order of reading."""
    makers = (
        _short, _data, _method, _curves, _leaderboard, _progress, _effects, _finalists, _ablation, _cost,
        _confusion, _pruning, _test, _repeating,
    )  # fmt: skip
    return [make(subject) for make in makers]


def percent(share: float | None) -> str:
    """A share in [0, 1] in per cent."""
    return "-" if share is None else f"{100 * share:.2f} %"


def _short(subject: Subject) -> Section:
    summary, found = subject.summary, subject.finalists
    of = f"{summary.closed} of {summary.total}" if summary.total else f"{summary.closed}"
    facts = [("Trials", f"{of} closed: {_ended(summary)}")]
    if summary.leaderboard:
        best = summary.leaderboard[0]
        runs = "one run" if best.runs == 1 else f"mean of {best.runs} runs"
        facts.append((
            "Best in the search",
            f"{percent(best.accuracy)} (trial {best.trials[0]}, {runs}, on {summary.val_images:,} validation "
            f"images: standard error of that sample alone {100 * (summary.standard_error or 0):.2f} points)",
        ))  # fmt: skip
    if found:
        facts.append(("Best when repeated", _confirmed(found)))
    looks = looks_of(subject.study)
    facts.append(("Looks at the test split", str(len(looks)) if looks else "none"))
    facts.append(("Training time", f"{duration(summary.seconds_trained)} in all"))
    return Section("short", "In short", facts=tuple(facts))


def _ended(summary: Summary) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(summary.ended.items())) or "none"


def _confirmed(found: Finalists) -> str:
    best = found.finalists[0]
    interval = (
        f", {100 * found.confidence:.0f} % interval by itself {_span(best.interval)}" if best.interval else ""
    )
    tied = sum(each.difference is not None and not each.distinguished for each in found.finalists)
    others = f"; {tied} other(s) not distinguished from it" if tied else ""
    return f"{percent(best.mean)} ({best.label}, n = {len(best.accuracies)} runs{interval}{others})"


def _span(interval: Interval) -> str:
    return f"{percent(interval.low)} to {percent(interval.high)}"


def _data(subject: Subject) -> Section:
    data, split = subject.study.record.data, subject.study.record.split
    height, width, channels = data.shape
    facts = (
        ("Data set", data.name),
        ("Images", f"{height} x {width}, {channels} channel(s)"),
        ("Classes", f"{len(data.classes)}: {', '.join(data.classes)}"),
        ("Training images", f"{split.train_images:,}"),
        ("Validation images", f"{split.val_images:,}"),
        (
            "Split",
            f"stratified, seed {split.seed}, the same for every trial of the search; hash {split.hash}",
        ),
        ("Hash of the data", data.hash),
        ("Test images", "never loaded by a search"),
    )
    return Section("data", "Data and split", facts=facts)


def _method(subject: Subject) -> Section:
    study, record = subject.study, subject.study.record
    outcomes = [outcome for trial in subject.trials if (outcome := outcome_of(trial))]
    setups = [setup for trial in subject.trials if (setup := setup_of(trial))]
    versions = sorted(
        {f"{name} {number}" for outcome in outcomes for name, number in outcome.versions.items()}
    )
    samplers = sorted({setup.sampler for setup in setups}) or [record.sampler]
    pruners = sorted({setup.pruner for setup in setups}) or [record.pruner]
    budget = f"{study.total()} trials" if study.total() else "as many trials as fit the time"
    facts = [
        ("Search space", f"{record.space_name} ({len(study.space.parameters)} parameters)"),
        (
            "Sampler",
            ", ".join(samplers) + (f", balanced over {study.space.balance}" if study.space.balance else ""),
        ),
        ("Pruner", ", ".join(pruners)),
        ("Budget", f"{budget} of {record.epochs} epochs"),
        ("Precision", record.precision),
        ("Seed", str(record.seed)),
        ("Hardware", ", ".join(subject.summary.device) or "none yet"),
        ("Software", ", ".join(versions) or "none yet"),
        *(("Adapted", change) for change in record.changes),
        *(("Left out", line) for line in left_out(subject.summary)),
        *(("Notice", notice) for notice in study.notices()),
    ]
    columns: Columns = [(name, "text") for name in ("parameter", "values", "role", "active where", "base")]
    rows = [(row.parameter, row.values, row.role, row.condition, row.base) for row in study.space.rows()]
    lead = (
        "A trial's value is the validation accuracy of its last epoch, or of the epoch that early stopping "
        "returns to, on clean images without test-time augmentation.",
    )
    return Section(
        "method", "Method", lead, tuple(facts),
        (("Parameters of the search space", table_of(columns, rows)),),
        details=(("The whole space, as it was searched (YAML)", record.space),),
    )  # fmt: skip


def _front(subject: Subject) -> dict[int, str]:
    """Trials in front: of the finalists, or the best of the search."""
    if subject.finalists:
        return {f.trials[0]: f"finalist: {f.label}" for f in subject.finalists.finalists if f.trials}
    entries = subject.summary.leaderboard[:IN_FRONT]
    return {entry.trials[0]: f"trial {entry.trials[0]}: {percent(entry.accuracy)}" for entry in entries}


def _present(charts: Iterable[Chart | None]) -> tuple[Chart, ...]:
    return tuple(chart for chart in charts if chart)


def _curves(subject: Subject) -> Section:
    front = _front(subject)
    charts = (curves_chart(subject.trials, front, subject.val_images), loss_chart(subject.trials, front))
    return _section(subject, "curves", "Learning curves", charts, "No epoch has ended yet.")


def _section(
    subject: Subject, id: str, title: str, charts: Iterable[Chart | None], empty: str, *commands: str
) -> Section:
    """A section of charts, or the sentence on why there are none and the commands that would change that."""
    present = _present(charts)
    if present:
        return Section(id, title, charts=present)
    return Section(id, title, (empty,), commands=commands or (subject.commands.run(),))


def _leaderboard(subject: Subject) -> Section:
    chart = leaderboard_chart(subject.summary.leaderboard, subject.val_images)
    section = _section(subject, "leaderboard", "Leaderboard", [chart], "No trial has completed yet.")
    return _with_table(section, chart)


def _with_table(section: Section, chart: Chart | None) -> Section:
    """The section with the first rows of the chart's table as well."""
    if chart is None:
        return section
    table = Table(chart.table.columns, chart.table.rows[:SHOWN_ROWS])
    left = len(chart.table.rows) - len(table.rows)
    caption = f"The first {SHOWN_ROWS} of {len(chart.table.rows)}" if left else ""
    return Section(
        section.id, section.title, section.lead, section.facts, (*section.tables, (caption, table)),
        section.charts, section.details, section.commands,
    )  # fmt: skip


def _progress(subject: Subject) -> Section:
    progress = {subject.study.name: progress_of(subject.study)}
    charts = (progress_chart(progress, "trials"), progress_chart(progress, "time"))
    return _section(subject, "progress", "How the search went", charts, "No trial has completed yet.")


def _effects(subject: Subject) -> Section:
    effects = subject.effects
    charts = [
        *level_charts(effects),
        importance_chart(effects.importances),
        *interaction_charts(effects.interactions),
    ]
    lead = [_sampling_words(effects)]
    if effects.importances.reason:
        lead.append(f"No importances: {effects.importances.reason}.")
    lead += [f"{missing}." for missing in effects.missing]
    lead += [f"Open: {suggestion.why}." for suggestion in effects.next[:1]]
    commands = tuple(subject.commands.with_storage(suggestion.command) for suggestion in effects.next)
    return Section("effects", "Effects", tuple(lead), charts=_present(charts), commands=commands)


def _sampling_words(effects: Effects) -> str:
    if effects.intervals_reason is None:
        return (
            "Trials were drawn at random or make up a grid, so that levels with enough trials have intervals."
        )
    return f"Levels are described, not tested, and have no intervals: {effects.intervals_reason}."


def _finalists(subject: Subject) -> Section:
    if not subject.all_finalists:
        empty = (
            "Not done yet. The best trial of a search is best partly by luck; repeating the best "
            "configurations on fresh seeds and splits says how good they are."
        )
        return _section(subject, "finalists", "Finalists", (), empty, subject.commands.confirm())
    section = Section("finalists", "Finalists")
    lead: list[str] = []
    for found in subject.all_finalists:
        chart = finalists_chart(found)
        if found.parameter:
            index = subject.all_finalists.index(found)
            chart = Chart(f"{chart.name}-by-level-{index}", chart.figure, chart.table, chart.caption)
            lead.append(f"The best of each level of {found.parameter} were repeated too.")
        section = _with_table(Section(
            "finalists", "Finalists", (), (), section.tables, (*section.charts, chart)
        ), chart)  # fmt: skip
        lead += [f"{missing}." for missing in found.missing]
    confidence = f"{100 * subject.all_finalists[0].confidence:.0f} %"
    lead.append(
        f"Interval: {confidence}, of each mean by itself, by Student's t. Minus the best: {confidence} for "
        "all pairs at once (Tukey's studentized range, finalists by blocks), which pays for having picked "
        "the best from these very runs. Not distinguished is not the same as equal. Runs of a finalist share "
        "images, so that intervals speak of fresh seeds and splits of these data, not of other data."
    )
    return Section("finalists", "Finalists", tuple(lead), (), section.tables, section.charts)


def _ablation(subject: Subject) -> Section:
    found = subject.ablation
    chart = ablation_chart(found) if found else None
    if found is None or chart is None:
        empty = (
            "Not done yet. It says what each setting of the winner is worth, against the base of the space."
        )
        return _section(subject, "ablation", "Ablation", (), empty, subject.commands.ablate())
    lead = (f"Winner: {found.winner}.", *(f"{missing}." for missing in found.missing))
    return _with_table(Section("ablation", "Ablation", lead, charts=(chart,)), chart)


def _cost(subject: Subject) -> Section:
    points = priced(subject.summary.leaderboard, subject.by_number, subject.finalists)
    chart = cost_chart(points, subject.val_images)
    return _section(
        subject,
        "cost",
        "Accuracy against cost",
        [chart],
        "Needs two completed configurations that differ in cost.",
    )


def _confusion(subject: Subject) -> Section:
    classes = subject.study.data.classes
    charts: list[Chart] = []
    best = next(iter(subject.summary.leaderboard), None)
    counts = confusion_of(subject.by_number[best.trials[0]]) if best else None
    if best and counts:
        charts.append(confusion_chart(counts, classes, f"trial {best.trials[0]} (validation)", "confusion"))
    charts += _confusion_of_finalist(subject)
    empty = "Not recorded: the best trial was trained by a version that did not keep it, or did not complete."
    return _section(subject, "confusion", "Confusion matrix", charts, empty, subject.commands.confirm())


def _confusion_of_finalist(subject: Subject) -> list[Chart]:
    if subject.finalists is None:
        return []
    best = subject.finalists.finalists[0]
    plan = PlanStudy(subject.study.storage, subject.finalists.plan)
    trial = subject.by_number.get(best.trials[0])
    setup = setup_of(trial) if trial else None
    runs = [
        t
        for (fingerprint, _), t in plan.closed_trials().items()
        if setup and fingerprint == setup.fingerprint
    ]
    matrices = [matrix for run in runs if (matrix := confusion_of(run))]
    if not matrices:
        return []
    of = f"finalist {best.label}, {len(matrices)} run(s) added"
    return [confusion_chart(added(matrices), subject.study.data.classes, of, "confusion-finalist")]


def _pruning(subject: Subject) -> Section:
    closing = subject.study.slots().closing_trials()
    found = hits(subject.study.space.parameters, closing, subject.study.epochs)
    chart = pruning_chart(found)
    if chart is None:
        names = sorted({setup.pruner for trial in subject.trials if (setup := setup_of(trial))})
        text = f"No trial was pruned (pruner: {', '.join(names) or subject.study.pruner})."
        return Section("pruning", "What pruning saved, and whom it hit", (text,))
    total = found[0]
    lead = (
        f"{total.pruned} of {total.trials} trials were pruned; they trained {total.epochs} epochs and were "
        f"spared {total.spared}, which is about {duration(total.seconds_saved)} at their own speed.",
    )
    return Section("pruning", "What pruning saved, and whom it hit", lead, charts=(chart,))


def _test(subject: Subject) -> Section:
    looks = looks_of(subject.study)
    if not looks:
        text = "The test split has not been looked at. A search never loads it; retrain evaluates on it."
        return Section("test", "Looks at the test split", (text,), commands=subject.commands.retrain())
    columns: Columns = [
        ("date", "text"), ("run", "text"), ("configuration", "text"), ("runs", "count"),
        ("mean test accuracy", "share"), ("standard deviation", "share"), ("version", "text"),
    ]  # fmt: skip
    rows = [
        (
            look.date.strftime("%Y-%m-%d %H:%M UTC"), look.folder, look.fingerprint[:8], len(look.accuracies),
            statistics.fmean(look.accuracies) if look.accuracies else None,
            statistics.stdev(look.accuracies) if len(look.accuracies) > 1 else None, look.version,
        )
        for look in looks
    ]  # fmt: skip
    different = len({look.fingerprint for look in looks})
    text = (
        f"The test split was looked at {len(looks)} time(s), with {different} configuration(s). Only the "
        "first look at one configuration, chosen without it, is an unbiased estimate."
    )
    return Section("test", "Looks at the test split", (text,), tables=(("", table_of(columns, rows)),))


def _repeating(subject: Subject) -> Section:
    lead = [
        "Trials repeat exactly on the same device with the same versions. With several workers an adaptive "
        "search draws other configurations each time, since it depends on which trial ends first.",
    ]
    if not subject.commands.built_in:
        lead.append(f"Save the space (see Method) as {subject.commands.space_file} first.")
    lead += subject.commands.caveats()
    return Section("repeat", "How to repeat it", tuple(lead), commands=subject.commands.all(subject))
