"""Figures: that they show the data, that tables are the data, and that no text becomes markup."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_summary import claim, end, make_study, run

from studies.ablation import Ablation, Step
from studies.effects import read_effects
from studies.figures import (
    Chart,
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
    pareto_front,
    progress_chart,
    progress_of,
    pruning_chart,
)  # fmt: skip
from studies.figures.chart import show, table_of
from studies.figures.confusion import added
from studies.figures.cost import Priced
from studies.figures.pruning import hits
from studies.figures.style import PALETTE
from studies.finalists import Finalist, Finalists
from studies.statistics import Interval
from studies.storage import open_storage
from studies.study import SearchStudy
from studies.summary import Entry, summarize

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def study(sqlite_url: str) -> Iterator[SearchStudy]:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        yield make_study(storage, "s", 20)


@pytest.fixture
def searched(study: SearchStudy) -> SearchStudy:
    """Six trials: 50, 70 and 60 %, one pruned after 4 of 10 epochs, one failed for good, and 70 % again."""
    run(study, 0.5)
    run(study, 0.7, model__dropout=0.1)
    run(study, 0.6, model__normalization="none")
    end(study, claim(study, model__normalization="none", optimizer__lr=0.2), "pruned", 0.3, 4, seconds=8.0)
    end(study, claim(study, optimizer__lr=0.3), "out of memory", 0.2, 1)
    run(study, 0.72, model__dropout=0.1)
    return study


def traces(chart: Chart) -> dict[str, Any]:
    return {trace.name: trace for trace in chart.figure.data}


def column(chart: Chart, name: str) -> list[Any]:
    index = [each.name for each in chart.table.columns].index(name)
    return [row[index] for row in chart.table.rows]


def test_learning_curves_show_every_epoch_of_every_trial_once(searched: SearchStudy) -> None:
    trials = searched.trials()
    chart = curves_chart(trials, {1: "best", 2: EVIL}, 100)
    assert chart is not None
    front = traces(chart)["best"]
    assert list(front.x) == list(range(1, 11))
    assert list(front.y) == pytest.approx([7 * epoch for epoch in range(1, 11)])
    drawn = [
        (x, y) for trace in chart.figure.data for x, y in zip(trace.x, trace.y, strict=True) if x is not None
    ]
    expected = [(step, 100 * v) for trial in trials for step, v in trial.intermediate_values.items()]
    assert np.array(sorted(drawn)) == pytest.approx(np.array(sorted(expected)))
    assert "n = 6 trials" in chart.figure.layout.title.text
    assert "100 validation images" in chart.figure.layout.title.text
    assert len(chart.table.rows) == len(expected)
    assert sum(column(chart, "validation accuracy")) == pytest.approx(sum(v for _, v in expected) / 100)
    assert "pruned or failed (2)" in traces(chart)


def test_losses_are_those_of_the_trials_in_front(searched: SearchStudy) -> None:
    chart = loss_chart(searched.trials(), {1: "best"})
    assert chart is not None
    assert list(traces(chart)) == ["trial 1, validation", "trial 1, training"]
    assert list(traces(chart)["trial 1, training"].y) == [None, *range(1, 10)]
    assert loss_chart(searched.trials(), {}) is None


def test_a_study_without_trials_has_no_figures(study: SearchStudy) -> None:
    summary, effects = summarize(study), read_effects(study)
    assert curves_chart(study.trials(), {}, 100) is None
    assert leaderboard_chart(summary.leaderboard, 100) is None
    assert progress_chart({"s": progress_of(study)}, "time") is None
    assert level_charts(effects) == interaction_charts(effects.interactions) == []
    assert importance_chart(effects.importances) is None
    assert pruning_chart(hits(study.space.parameters, [], 10)) is None
    assert cost_chart([], 100) is None


def test_the_leaderboard_has_the_standard_error_of_the_sample(searched: SearchStudy) -> None:
    entries = summarize(searched).leaderboard
    chart = leaderboard_chart(entries, 100)
    assert chart is not None
    [dots] = chart.figure.data
    assert list(dots.x) == pytest.approx([71, 60, 50])
    errors = [100 * math.sqrt(p * (1 - p) / 100) for p in (0.71, 0.6, 0.5)]
    assert list(dots.error_x.array) == pytest.approx(errors)
    assert column(chart, "trials") == ["trial 1, 5", "trial 2", "trial 0"]
    assert column(chart, "model.dropout") == [0.1, 0.0, 0.0]


def test_best_so_far_against_trials_and_against_the_time_of_all_attempts(searched: SearchStudy) -> None:
    found = progress_of(searched)
    assert [p.closed for p in found] == [1, 2, 3, 4, 5, 6]
    assert [p.best for p in found] == [0.5, 0.7, 0.7, 0.7, 0.7, 0.72]
    assert [p.seconds for p in found] == [10, 20, 30, 38, 39, 49]
    by_trials = progress_chart({"s": found}, "trials")
    by_time = progress_chart({"s": found}, "time")
    assert by_trials is not None
    assert by_time is not None
    assert list(traces(by_trials)["best so far"].y) == pytest.approx([50, 70, 70, 70, 70, 72])
    assert list(traces(by_time)["best so far"].x) == [10, 20, 30, 38, 39, 49]
    assert list(traces(by_trials)["pruned"].y) == pytest.approx([30])
    assert list(traces(by_trials)["failed"].y) == pytest.approx([20])


def test_several_studies_are_lines_that_differ_by_more_than_colour(searched: SearchStudy) -> None:
    found = progress_of(searched)
    chart = progress_chart({"one": found, EVIL: found[:3], "none yet": []}, "trials")
    assert chart is not None
    assert list(traces(chart)) == ["one (n = 6)", "&lt;script&gt;alert(1)&lt;/script&gt; (n = 3)"]
    assert len({trace.line.color for trace in chart.figure.data}) == 2
    assert len({trace.line.dash for trace in chart.figure.data}) == 2


def test_levels_show_what_the_effects_say(searched: SearchStudy) -> None:
    effects = read_effects(searched)
    [chart] = level_charts(effects)  # a random search without a balance: all described together
    best = traces(chart)["best single run"]
    expected = [100 * level.best for e in effects.parameters for level in e.levels if level.best is not None]
    assert list(best.x) == pytest.approx(expected)
    labels = chart.figure.layout.yaxis.ticktext
    assert labels[:2] == ("normalization: batch (n = 4)", "normalization: none (n = 2, 1 pruned)")
    assert column(chart, "trials") == [level.trials for e in effects.parameters for level in e.levels]


def test_importances_and_pairs_show_what_the_effects_say(study: SearchStudy) -> None:
    for index in range(12):
        kind = "batch" if index % 2 else "none"
        run(
            study,
            0.3 + 0.4 * (index % 2) + index / 100,
            model__normalization=kind,
            model__dropout=0.1 * (index % 3),
        )
    effects = read_effects(study, resamples=5)
    chart = importance_chart(effects.importances)
    assert chart is not None
    [bars] = chart.figure.data
    assert list(bars.x) == pytest.approx([100 * each.share for each in effects.importances.parameters])
    assert list(bars.error_x.array) == pytest.approx([100 * e.spread for e in effects.importances.parameters])
    assert "n = 12 completed" in chart.figure.layout.title.text
    pairs = interaction_charts(effects.interactions)
    assert len(pairs) == len(effects.interactions) > 0
    cells = [cell for row in effects.interactions[0].cells for cell in row]
    shown = [value for row in pairs[0].figure.data[0].z for value in row]
    assert shown == pytest.approx([100 * cell.mean if cell.mean is not None else None for cell in cells])
    assert column(pairs[0], "completed") == [cell.trials for cell in cells]


def finalist(label: str, accuracies: tuple[float, ...], **changes: Any) -> Finalist:
    mean = sum(accuracies) / len(accuracies)
    made = Finalist(
        label=label, trials=(1,), parameters={}, level=None, search_accuracy=0.8, accuracies=accuracies,
        mean=mean, spread=0.01, interval=Interval(mean - 0.02, mean + 0.03),
        difference=Interval(-0.06, -0.01), distinguished=True, cheapest=False, seconds=10.0,
        parameters_count=1000, multiply_adds=2000,
    )  # fmt: skip
    return replace(made, **changes)


def found_finalists() -> Finalists:
    first = finalist("trial 1", (0.7, 0.72), difference=None, distinguished=False)
    second = finalist(EVIL, (0.69, 0.71), distinguished=False, cheapest=True, interval=None)
    third = finalist("trial 3", (0.66, 0.68))
    return Finalists("s", "s/confirm", None, 2, None, (first, second, third), 2, 0.95, ())


def test_finalists_show_every_run_the_mean_the_interval_and_the_search() -> None:
    chart = finalists_chart(found_finalists())
    assert list(traces(chart)["run"].x) == pytest.approx([70, 72, 69, 71, 66, 68])
    means = traces(chart)["mean, 95 % interval of each by itself"]
    assert list(means.x) == pytest.approx([71, 70, 67])
    assert list(means.error_x.array) == [pytest.approx(3), None, pytest.approx(3)]
    assert list(means.error_x.arrayminus) == [pytest.approx(2), None, pytest.approx(2)]
    assert list(traces(chart)["score in the search"].x) == [80, 80, 80]
    assert column(chart, "verdict") == [
        "best mean", "not distinguished from the best, cheapest of those", "distinguished from the best",
    ]  # fmt: skip
    assert column(chart, "flattered by") == pytest.approx([0.09, 0.10, 0.13])


def step(label: str, kind: Any, mean: float, difference: Interval | None) -> Step:
    return Step(label, kind, {}, (mean, mean), mean, 0.0, difference, 10.0, 1000, 2000)


def test_an_ablation_shows_differences_from_the_base_and_from_the_winner() -> None:
    steps = (
        step("base", "base", 0.5, None),
        step("base + dropout", "base with", 0.55, Interval(0.02, 0.08)),
        step("winner", "winner", 0.7, Interval(0.17, 0.23)),
        step("winner - dropout", "winner without", 0.66, Interval(-0.07, -0.01)),
    )
    chart = ablation_chart(Ablation("s/ablate", "trial 1", 2, 3, 0.95, steps, ()))
    assert chart is not None
    base, winner = chart.figure.data
    assert list(base.x) == pytest.approx([5, 20])
    assert list(base.y) == [0, 1]
    assert list(winner.x) == pytest.approx([-4])
    assert [*winner.error_x.array, *winner.error_x.arrayminus] == pytest.approx([3, 3])
    assert column(chart, "difference")[0] is None
    assert column(chart, "difference")[1:] == pytest.approx([0.05, 0.2, -0.04])
    assert ablation_chart(Ablation("s/ablate", "trial 1", 2, 3, 0.95, steps[:1], ())) is None


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=14))
def test_the_pareto_front_is_what_no_other_point_dominates(points: list[tuple[float, float]]) -> None:
    front = [i for i, p in enumerate(points) if not any(dominates(other, p) for other in points)]
    assert sorted(pareto_front(points)) == front


def test_accuracy_against_cost_leaves_out_costs_that_are_all_alike() -> None:
    draw = random.Random(0)
    points = [
        Priced(f"trial {i}", draw.random(), 1, False, draw.random() * 100, 5000, draw.choice([10, 1000]))
        for i in range(12)
    ]
    points.append(Priced("trial 3", 0.5, 5, True, 7.0, 5000, 10))
    chart = cost_chart(points, 100)
    assert chart is not None
    assert "All have the same multiply-adds" in chart.caption
    assert [axis.title.text for axis in chart.figure.select_xaxes()] == [
        "training time of a run (s), log", "parameters, log",
    ]  # fmt: skip
    pairs = [(p.seconds or 0.0, p.accuracy) for p in points[:-1]]
    expected = [not any(dominates(other, pair) for other in pairs) for pair in pairs]
    assert column(chart, "on the front of time") == [*expected, False]
    assert column(chart, "on the front of multiply-adds") == [None] * 13
    front = next(trace for trace in chart.figure.data if trace.name == "Pareto front")
    assert sorted(front.y) == pytest.approx(
        sorted(100 * y for (_, y), on in zip(pairs, expected, strict=True) if on)
    )
    assert cost_chart(points[:1], 100) is None


def test_a_confusion_matrix_shows_shares_of_the_true_class() -> None:
    chart = confusion_chart([[8, 2], [0, 0]], [EVIL, "dog"], "trial 1", "confusion")
    [heat] = chart.figure.data
    assert [list(row) for row in heat.z] == [[80, 20], [0, 0]]
    assert [list(row) for row in heat.text] == [[8, 2], [0, 0]]
    assert "n = 10 predictions, 80.00 % right" in chart.figure.layout.title.text
    assert chart.table.rows == ((EVIL, 8, 2), ("dog", 0, 0))
    assert added([[[1, 2], [3, 4]], [[10, 20], [30, 40]]]) == [[11, 22], [33, 44]]


def test_pruning_says_what_was_saved_and_whom_it_hit(searched: SearchStudy) -> None:
    found = hits(searched.space.parameters, searched.slots().closing_trials(), 10)
    everyone, batch, none = found[0], found[1], found[2]
    assert (everyone.trials, everyone.completed, everyone.pruned, everyone.other) == (6, 4, 1, 1)
    assert (everyone.epochs, everyone.spared, everyone.seconds_saved) == (4, 6, 12.0)
    assert (batch.pruned, batch.other, none.pruned, none.completed) == (0, 1, 1, 1)
    chart = pruning_chart(found)
    assert chart is not None
    assert traces(chart)["pruned"].x[2] == 50
    totals = zip(*(trace.x for trace in chart.figure.data), strict=True)
    assert [sum(parts) for parts in totals] == pytest.approx([100] * len(chart.figure.layout.yaxis.ticktext))


CELL = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
)


@given(st.lists(st.tuples(CELL, CELL), max_size=5))
def test_a_table_is_read_back_from_its_csv(rows: list[tuple[Any, Any]]) -> None:
    table = table_of([('a,\n"b"', "text"), ("c", "number")], rows)
    header, *read = csv.reader(io.StringIO(table.csv(), newline=""))
    assert header == ['a,\n"b"', "c"]
    for cells, row in zip(read, rows, strict=True):
        for cell, value in zip(cells, row, strict=True):
            if isinstance(value, str):
                assert cell.removeprefix("'") == value.removeprefix("'")
                assert not cell.startswith(("=", "+", "-", "@"))
            elif isinstance(value, float):
                assert float(cell) == value
            else:
                assert cell == ("" if value is None else str(value))


@pytest.mark.parametrize(
    ("cell", "kind", "shown"),
    [
        (0.12345, "share", "12.35 %"), (-0.0123, "points", "\N{MINUS SIGN}1.23"), (0.0123, "points", "+1.23"),
        (200, "seconds", "3 min 20 s"), (7500.0, "seconds", "2 h 5 min"), (1234567, "count", "1,234,567"),
        (None, "share", "-"), (True, "text", "yes"), ("a", "setting", "a"), (1e-4, "setting", "1e-4"),
    ],
)  # fmt: skip
def test_cells_are_shown_with_their_unit(cell: Any, kind: Any, shown: str) -> None:
    assert show(cell, kind) == shown


def test_no_text_from_elsewhere_is_markup_in_a_figure(searched: SearchStudy) -> None:
    matrix = [[1, 0], [0, 1]]
    priced = [Priced(EVIL, 0.5, 1, False, 1.0, 1, 1), Priced(EVIL, 0.6, 1, True, 2.0, 1, 2)]
    steps = (step("base", "base", 0.5, None), step(EVIL, "winner", 1, None))
    charts = [
        curves_chart(searched.trials(), {1: EVIL}, 100),
        progress_chart({EVIL: progress_of(searched), "b": progress_of(searched)}, "time"),
        finalists_chart(found_finalists()),
        confusion_chart(matrix, [EVIL, "b"], EVIL, "confusion"),
        cost_chart(priced, 100),
        ablation_chart(Ablation("", "", 1, 0, 0.95, steps, ())),
        leaderboard_chart([replace(summarize(searched).leaderboard[0], parameters={"a": EVIL})], 100),
    ]  # fmt: skip
    for chart in charts:
        assert chart is not None
        text = json.dumps(chart.figure.to_dict(), default=list, ensure_ascii=False)
        assert "<script" not in text
        assert "&lt;script&gt;" in text


def test_figures_fit_a_hundred_trials_as_well_as_three() -> None:
    curve = {epoch: epoch / 20 for epoch in range(1, 11)}
    trials = [optuna.trial.create_trial(value=0.5, intermediate_values=curve) for _ in range(100)]
    for number, trial in enumerate(trials):
        trial.number = number
    curves = curves_chart(trials, {99: "best"}, 100)
    assert curves is not None
    assert len(curves.figure.data) == 2  # many curves are one trace
    entries = [Entry(1 / rank, 1, None, (rank,), {}, 1.0, "") for rank in range(1, 101)]
    small, large = leaderboard_chart(entries[:3], 100), leaderboard_chart(entries, 100)
    assert small is not None
    assert large is not None
    assert len(large.figure.data[0].x) == 20
    assert len(large.table.rows) == 100
    assert 200 < small.figure.layout.height < 300 < 500 < large.figure.layout.height < 900


def test_colours_can_be_told_apart_with_the_common_kinds_of_colour_blindness() -> None:
    """Distances in linear RGB as a dichromat sees it (Viénot, Brettel and Mollon 1999)."""
    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    colours = np.array([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in PALETTE]) ** 2.2
    for kind in (np.eye(3), protan, deutan):
        seen = (colours @ (np.linalg.inv(to_lms) @ kind @ to_lms).T).clip(0, 1) ** (1 / 2.2)
        distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + np.eye(len(seen))
        assert distances.min() > 0.12
