"""What other programs write into a study, in the place of what ours does: it is told, and nothing ends in a
traceback."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import optuna
import pytest
from made_studies import FREE, claim, end, forge, make_study, run_all
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState

from studies import record
from studies.ablation import ablation_of
from studies.artifacts import ArtifactStore, artifacts_of, attach_text
from studies.effects import read_effects
from studies.export import as_yaml, of_best, of_trial
from studies.finalists import finalists_of
from studies.listing import list_studies
from studies.live import LiveReports
from studies.looks import looks_of
from studies.methods import build_pruner
from studies.notes import add_note, note_of, set_generated, written_note
from studies.plan import PlanStudy
from studies.processes import process_name
from studies.progress import ProgressMeter
from studies.record import Drawing
from studies.storage import Storage, StorageError, open_storage
from studies.study import SearchStudy
from studies.summary import as_json, left_out, summarize
from studies.upkeep import work_on

MADE_UP: tuple[Any, ...] = ("x", [1], {}, None, -1, 1.5, True, [{"lr": "x"}], "\x1b[31m")
IN_PLACE_OF_A_PART: tuple[Any, ...] = ("x", {}, None, 10**30)
OF_TRIALS = (
    record.SLOT, record.ATTEMPT, record.WORKER, record.LEADER, record.CLAIM, record.QUEUED, record.SETUP,
    record.OUTCOME, record.HISTORY, record.CONFUSION,
)  # fmt: skip
WITHIN = {
    record.SETUP: ("seed", "repeat", "fingerprint", "configuration", "sampler", "pruner", "split"),
    record.OUTCOME: ("reason", "message", "epoch", "reached", "seconds", "versions", "device", "parameters"),
}
FLOATS = distribution_to_json(FloatDistribution(1e-3, 1, log=True))
CHOICES = distribution_to_json(CategoricalDistribution(["batch", "none"]))
PARAMETERS: dict[str, tuple[str, Any, str]] = {
    "no distribution": ("optimizer.lr", 0.1, "x"),
    "an empty distribution": ("optimizer.lr", 0.1, "{}"),
    "a distribution without bounds": ("optimizer.lr", 0.1, '{"name": "FloatDistribution"}'),
    "a deep distribution": ("optimizer.lr", 0.1, "[" * 100_000),
    "a distribution without choices": (
        "model.normalization", 0.0, '{"name": "CategoricalDistribution", "attributes": {"choices": []}}',
    ),
    "choices that are mappings": (
        "optimizer.lr", 0.0, '{"name": "CategoricalDistribution", "attributes": {"choices": [{"a": 1}]}}',
    ),
    "texts in place of numbers": ("optimizer.lr", 1.0, CHOICES),
    "numbers in place of texts": ("model.normalization", 1.0, FLOATS),
    "other choices": (
        "model.normalization", 1.0, distribution_to_json(CategoricalDistribution(["\x1b[31m", "b"])),
    ),
    "a choice that is not there": ("model.normalization", 99.0, CHOICES),
    "a choice before the first": ("model.normalization", -1.0, CHOICES),
    "a choice beyond all numbers": ("model.normalization", math.inf, CHOICES),
    "no number": ("optimizer.lr", None, FLOATS),
    "a text": ("optimizer.lr", "abc", FLOATS),
    "a number beyond all": ("optimizer.lr", math.inf, FLOATS),
    "a number that has no logarithm": ("optimizer.lr", -1.0, FLOATS),
    "a number beyond the range": ("optimizer.lr", 1e308, FLOATS),
    "a name that is none": ("\x1b[31m", 0.1, FLOATS),
}  # fmt: skip
"""Name, stored value and stored distribution of a parameter that no trial of ours can have."""
NUMBERS = (
    (1e308, "FINITE"), (5.0, "FINITE"), (-1.0, "FINITE"), (None, "FINITE"), ("abc", "FINITE"),
    (math.inf, "FINITE"), (None, "INF_POS"), (0.5, "INF_NEG"), (None, "NAN"), (0.5, "x"),
)  # fmt: skip
"""What can stand in the place of an accuracy, and of which kind it is said to be."""
TEXTS = ("x", "", "NaN", "[", "[" * 100_000, '"\\ud800"', '{"reason": "finished", "seconds": Infinity}')
"""What can stand in the place of JSON, or of JSON that others can read."""
OF_STUDIES = (record.TOTAL, record.NOTICES, record.STOPS, record.STOP_REQUESTS, "test looks")
FORGED = 1
"""The number of the trial that is forged, a completed one."""


@pytest.fixture
def storage(sqlite_url: str) -> Iterator[Storage]:
    with closing(open_storage(sqlite_url, create=True)) as storage:
        yield storage


@pytest.fixture
def study(storage: Storage) -> SearchStudy:
    """A search of three completed slots of six."""
    study = make_study(storage, FREE, 3)
    run_all(study, lambda values: 0.5 + values["optimizer.lr"] / 10)
    study.set_total(6)
    return study


def read_all(study: SearchStudy) -> None:
    """Read everything that commands read."""
    storage, name = study.storage, study.name
    again = SearchStudy(storage, name)
    list_studies(storage)
    summarize(again)
    json.loads("".join(as_json(again)))
    ProgressMeter(again).read()
    read_effects(again, resamples=2)
    looks_of(again)
    finalists_of(storage, name)
    ablation_of(storage, name)


def refusal(act: Callable[[], object]) -> str:
    """What is said where something is refused; empty where it is not."""
    try:
        act()
    except ValueError as refused:
        return str(refused)
    return ""


def complete(storage: Storage) -> None:
    study = SearchStudy(storage, "s")
    while not study.is_complete():
        end(study, claim(study), "finished", 0.6)


def closed_once(storage: Storage) -> bool:
    """Whether each slot has one attempt that makes sense."""
    trials = [trial for trial in SearchStudy(storage, "s").trials() if record.slot_of(trial) is not None]
    return sorted(map(record.slot_of, trials)) == list(range(6))  # type: ignore[type-var]


@pytest.mark.parametrize("key", OF_TRIALS)
def test_a_trial_whose_attribute_is_made_up_is_told_and_another_takes_its_slot(
    study: SearchStudy, key: str
) -> None:
    genuine = study.trials()[FORGED].user_attrs.get(key)
    for value in MADE_UP:
        forge(study, key, value, FORGED)
        read_all(study)
        flaws = summarize(study).senseless
        assert flaws.keys() <= {FORGED}
        if key in (record.SETUP, record.OUTCOME):
            assert f"its {key} is none of ours: " in flaws[FORGED]
            assert "\x1b" not in flaws[FORGED]
    forge(study, key, "x", FORGED)
    if key in (record.SLOT, record.SETUP, record.OUTCOME):
        assert list_studies(study.storage)[0].closed == summarize(study).closed == 2
        complete(study.storage)
        assert closed_once(study.storage)
        assert [record.slot_of(trial) for trial in SearchStudy(study.storage, "s").trials()][3] == FORGED
    forge(study, key, genuine, FORGED)
    assert summarize(study).senseless == {}


@pytest.mark.parametrize(("key", "part"), [(key, part) for key, parts in WITHIN.items() for part in parts])
def test_a_part_of_a_record_that_is_made_up_costs_no_more_than_its_trial(
    study: SearchStudy, key: str, part: str
) -> None:
    genuine = study.trials()[FORGED].user_attrs[key]
    missing = {name: there for name, there in genuine.items() if name != part}
    for made_up in (missing, *({**genuine, part: value} for value in IN_PLACE_OF_A_PART)):
        forge(study, key, made_up, FORGED)
        read_all(study)
        assert summarize(study).closed == list_studies(study.storage)[0].closed >= 2


@pytest.mark.parametrize("key", OF_STUDIES)
def test_a_studys_attribute_that_is_made_up_ends_nothing(study: SearchStudy, key: str) -> None:
    for value in MADE_UP:
        study.optuna.set_user_attr(key, value)
        read_all(study)
    assert study.stops().requested == 0 or key == record.STOP_REQUESTS


@pytest.mark.parametrize("key", [record.STUDY, record.PLAN])
def test_a_study_whose_record_is_made_up_is_listed_and_refused_in_one_line(
    study: SearchStudy, key: str
) -> None:
    storage = study.storage
    for value in MADE_UP:
        storage.set_study_user_attr(study.study_id, key, value)
        (listed,) = list_studies(storage)
        assert (listed.name, listed.space) == ("s", None)
        with pytest.raises(ValueError, match="study 's'") as refused:
            SearchStudy(storage, "s")
        assert len(str(refused.value).splitlines()) == 1
        with pytest.raises(ValueError, match="study 's'") as refused:
            PlanStudy(storage, "s")
        assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_an_attempt_that_another_program_ends_is_tried_again(study: SearchStudy, state: TrialState) -> None:
    ended = claim(study)
    plain = optuna.load_study(study_name="s", storage=study.storage)
    plain.tell(ended.trial.number, 7.0 if state == TrialState.COMPLETE else None, state)
    read_all(study)
    flaws = summarize(study).senseless
    assert flaws == (
        {} if state == TrialState.FAIL else {3: f"another program told that it is {state.name.lower()}"}
    )
    complete(study.storage)
    assert closed_once(study.storage) or state == TrialState.FAIL
    assert [record.slot_of(trial) for trial in study.trials()][4] == 3


def test_trials_of_a_plain_script_in_our_study_are_counted_apart(study: SearchStudy) -> None:
    before = summarize(study)
    plain = optuna.load_study(study_name="s", storage=study.storage)
    plain.optimize(lambda trial: trial.suggest_float("x", 0, 1) + 2, n_trials=2)
    plain.ask()
    after = summarize(study)
    assert (before.foreign, after.foreign) == (0, 3)
    assert (after.leaderboard, after.ended, after.closed) == (before.leaderboard, before.ended, 3)
    assert after.importances == before.importances
    read_all(study)
    complete(study.storage)
    assert summarize(study).closed == 6


def stored(study: SearchStudy, statement: str, *values: Any, trial: int = FORGED) -> None:
    """Run a statement of another program on a trial, whose id is its last parameter."""
    trial_id = study.trials()[trial]._trial_id
    with study.storage.engine.begin() as connection:
        connection.exec_driver_sql(statement, (*values, trial_id))


@pytest.mark.parametrize("label", PARAMETERS)
def test_a_trial_counts_without_a_parameter_that_is_made_up(study: SearchStudy, label: str) -> None:
    name, value, distribution = PARAMETERS[label]
    before = summarize(study)
    stored(study, "DELETE FROM trial_params WHERE param_name = ? AND trial_id = ?", name)
    stored(
        study,
        "INSERT INTO trial_params (param_name, param_value, distribution_json, trial_id) VALUES (?, ?, ?, ?)",
        name, value, distribution,
    )  # fmt: skip
    read_all(study)
    after = summarize(study)
    assert {number: list(found) for number, found in after.misfits.items()} == {FORGED: [name]}
    (line,) = left_out(after)
    assert line.startswith(f"trial {FORGED} counts without its parameter ")
    assert "\x1b" not in line
    (entry,) = (entry for entry in after.leaderboard if FORGED in entry.trials)
    assert name not in entry.parameters
    told = json.loads("".join(as_json(study)))["trials"][FORGED]
    assert name not in told["parameters"]
    assert after.closed == before.closed == list_studies(study.storage)[0].closed
    complete(study.storage)
    assert closed_once(study.storage)
    read_all(study)


@pytest.mark.parametrize(("value", "kind"), NUMBERS)
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_value_that_is_no_accuracy_costs_its_trial(
    study: SearchStudy, value: Any, kind: str, sampler: str
) -> None:
    stored(study, "UPDATE trial_values SET value = ?, value_type = ? WHERE trial_id = ?", value, kind)
    read_all(study)
    assert summarize(study).senseless.keys() == {FORGED}
    assert summarize(study).closed == list_studies(study.storage)[0].closed == 2
    run_all(SearchStudy(study.storage, "s"), lambda _: 0.6, sampler)
    assert closed_once(study.storage)


@pytest.mark.parametrize(("value", "kind"), NUMBERS)
def test_a_curve_ends_before_what_is_no_accuracy(study: SearchStudy, value: Any, kind: str) -> None:
    stored(
        study,
        "UPDATE trial_intermediate_values SET intermediate_value = ?, intermediate_value_type = ? "
        "WHERE step = 2 AND trial_id = ?",
        value, kind,
    )  # fmt: skip
    read_all(study)
    curve = record.curve_of(SearchStudy(study.storage, "s").trials()[FORGED])
    assert len(curve) < 4
    assert all(0 <= accuracy <= 1 for accuracy in curve)
    assert summarize(study).closed == 3
    complete(study.storage)


def test_a_trial_of_two_values_or_no_state_makes_no_sense(study: SearchStudy) -> None:
    stored(
        study,
        "INSERT INTO trial_values (objective, value, value_type, trial_id) VALUES (1, 0.5, 'FINITE', ?)",
    )
    assert summarize(study).senseless.keys() == {FORGED}
    stored(study, "UPDATE trials SET state = 'x' WHERE trial_id = ?", trial=0)
    read_all(study)
    assert summarize(study).senseless.keys() == {0, FORGED}
    complete(study.storage)
    assert closed_once(study.storage)


@pytest.mark.parametrize("text", TEXTS)
def test_an_attribute_that_is_no_json_ends_nothing(study: SearchStudy, text: str) -> None:
    for key in (*OF_TRIALS, "another"):
        stored(study, "DELETE FROM trial_user_attributes WHERE key = ? AND trial_id = ?", key)
        stored(
            study, "INSERT INTO trial_user_attributes (key, value_json, trial_id) VALUES (?, ?, ?)", key, text
        )
        read_all(study)
    for table, keys in (("user", OF_STUDIES), ("system", ("study:metric_names", "dashboard:note_ver"))):
        for key in keys:
            with study.storage.engine.begin() as connection:
                at = (key, study.study_id)
                connection.exec_driver_sql(
                    f"DELETE FROM study_{table}_attributes WHERE key = ? AND study_id = ?", at
                )
                connection.exec_driver_sql(
                    f"INSERT INTO study_{table}_attributes (key, study_id, value_json) VALUES (?, ?, ?)",
                    (*at, text),
                )
            read_all(SearchStudy(study.storage, "s"))
    assert optuna.get_all_study_names(study.storage) == ["s"]
    assert note_of(study) == ""


@pytest.mark.parametrize("pieces", [10**12, 3, -1, "x", None, [1]])
def test_an_attribute_whose_pieces_are_made_up_is_none_of_ours(study: SearchStudy, pieces: Any) -> None:
    forge(study, record.SETUP, {"cifar-search:pieces": pieces}, FORGED)
    read_all(study)
    assert "its setup is none of ours" in summarize(study).senseless[FORGED]


@pytest.mark.parametrize("value", MADE_UP)
def test_notes_and_artifacts_are_read_as_far_as_they_make_sense(
    study: SearchStudy, tmp_path: Path, value: Any
) -> None:
    trial, store = study.trials()[FORGED], ArtifactStore(tmp_path / "artifacts")
    add_note(study, "of the study")
    add_note(study, "of the trial", trial)
    attach_text(study, store, trial._trial_id, "log.txt", "before")
    of_trial = f"dashboard:{trial._trial_id}:"
    keys = (
        "dashboard:note_ver", "dashboard:note_str:7", "dashboard:note_str:x", f"{of_trial}note_ver",
        f"{of_trial}note_str:1", "dashboard:artifacts:1:ab", "artifacts:ab", "study:metric_names",
        f"cifar-search:artifact:{trial._trial_id}:log.txt",
    )  # fmt: skip
    for key in keys:
        study.storage.set_study_system_attr(study.study_id, key, value)
    forge(study, "artifacts:ab", value, FORGED, models.TrialSystemAttributeModel)
    forge(study, "fixed_params", value, FORGED, models.TrialSystemAttributeModel)
    again = SearchStudy(study.storage, "s")
    assert "of the study" in written_note(again)
    assert "of the trial" in written_note(again, trial)
    for noted in (None, again.trials()[FORGED]):
        set_generated(again, "generated", noted)
        add_note(again, "more", noted)
        assert "more" in written_note(again, noted)
    attach_text(again, store, trial._trial_id, "log.txt", "after")
    assert artifacts_of(again) >= {path.name for path in store.folder.iterdir()}
    read_all(again)


def test_samplers_and_pruners_go_by_what_makes_sense_alone(study: SearchStudy) -> None:
    plain = optuna.load_study(study_name="s", storage=study.storage)
    plain.optimize(lambda trial: trial.suggest_float("optimizer.lr", 1e-3, 1, log=True), n_trials=3)
    ended = claim(study)
    plain.tell(ended.trial.number, 1.0)
    seen = [trial.number for trial in study.trials() if record.is_evidence(trial)]
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_samplers_draw_from_the_space_alone(storage: Storage, sampler: str) -> None:
    study = make_study(storage, FREE, 14)
    with catch_warnings(action="error", category=UserWarning):
        while (number := len(study.trials())) < 12:
            end(study, claim(study, "random"), "finished", 0.5 + number / 100)
        wide = distribution_to_json(FloatDistribution(1e-3, 1e9, log=True))
        made_up = {
            "model.normalization": (1.0, CHOICES.replace("none", "other")),
            "optimizer.lr": (1e8, wide),
        }
        for name, (value, distribution) in made_up.items():
            stored(
                study,
                "UPDATE trial_params SET param_value = ?, distribution_json = ? "
                "WHERE param_name = ? AND trial_id = ?",
                value, distribution, name,
            )  # fmt: skip
        again = SearchStudy(storage, "s")
        run_all(again, lambda _: 0.6, sampler)
    assert {record.reason_of(trial) for trial in again.trials()} == {"finished"}


def test_a_retry_has_no_parameter_that_is_made_up(study: SearchStudy) -> None:
    drawn = claim(study)
    end(study, drawn, "interrupted", epochs=1)
    stored(
        study,
        "UPDATE trial_params SET param_value = 1e8 WHERE param_name = 'optimizer.lr' AND trial_id = ?",
        trial=drawn.trial.number,
    )
    retried = claim(SearchStudy(study.storage, "s"))
    assert retried.slot == drawn.slot
    assert retried.configuration == drawn.configuration


def test_pruners_go_by_accuracies_alone(study: SearchStudy) -> None:
    study.optuna.pruner = build_pruner("asha", 4, 0.0)
    for number in range(3):
        stored(
            study,
            "UPDATE trial_intermediate_values SET intermediate_value = 7 WHERE step > 1 AND trial_id = ?",
            trial=number,
        )
        forge(study, "completed_rung_0", "x", number, models.TrialSystemAttributeModel)
    again = SearchStudy(study.storage, "s")
    again.optuna.pruner = study.optuna.pruner
    reports, of = LiveReports(again), claim(again)
    reports.begin(of.trial_id)
    for epoch in range(1, 4):
        reports.report(of.trial_id, epoch, 0.9)
        assert not reports.should_prune(of.trial_id)


def test_a_study_without_a_direction_that_there_is_is_listed_and_refused_in_one_line(
    study: SearchStudy,
) -> None:
    with study.storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE study_directions SET direction = 'x'")
    assert [each.name for each in list_studies(study.storage)] == ["s"]
    with pytest.raises(StorageError, match="another program wrote into it: 'x' is not among") as refused:
        study.storage.get_all_studies()
    assert len(str(refused.value).splitlines()) == 1
    assert (
        refusal(lambda: SearchStudy(study.storage, "s").claim("w", Drawing(sampler="tpe"))).count("\n") == 0
    )


def test_rows_without_a_key_are_none(study: SearchStudy) -> None:
    stored(study, "INSERT INTO trial_user_attributes (key, value_json, trial_id) VALUES (NULL, '1', ?)")
    stored(study, "INSERT INTO trial_system_attributes (key, value_json, trial_id) VALUES (NULL, '1', ?)")
    stored(
        study,
        "INSERT INTO trial_params (param_name, param_value, distribution_json, trial_id) "
        "VALUES (NULL, 1, '{}', ?)",
    )
    with study.storage.engine.begin() as connection:
        for table in ("user", "system"):
            connection.exec_driver_sql(
                f"INSERT INTO study_{table}_attributes (key, study_id, value_json) "
                f"VALUES (NULL, {study.study_id}, '1')"
            )
    read_all(study)
    complete(study.storage)
    assert closed_once(study.storage)


@pytest.mark.parametrize("name", [5, "HERE:x:1", "HERE:" + "9" * 30 + ":1", "HERE::1", "a:b:c:d"])
@pytest.mark.parametrize("key", [record.LEADER, record.WORKER])
def test_a_process_whose_name_is_made_up_is_not_known_to_be_dead(
    study: SearchStudy, key: str, name: Any
) -> None:
    running = claim(study)
    here = process_name(os.getpid()).rsplit(":", 2)[0]
    forge(study, key, name.replace("HERE", here) if isinstance(name, str) else name, running.trial.number)
    again = SearchStudy(study.storage, "s")
    assert work_on(again).trials == 1


def test_numbers_beyond_all_stop_no_sum_and_no_json(study: SearchStudy) -> None:
    genuine = study.trials()[FORGED].user_attrs
    forge(study, record.OUTCOME, {**genuine[record.OUTCOME], "seconds": 1.5e308}, FORGED)
    read_all(study)
    for number in ("NaN", "1e999"):
        text = json.dumps(genuine[record.SETUP]).replace('"epochs": 4', f'"epochs": {number}')
        assert number in text
        stored(
            study,
            "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'setup' AND trial_id = ?",
            text,
        )
        read_all(study)


def test_an_export_leaves_out_what_makes_no_sense(study: SearchStudy, sqlite_url: str) -> None:
    best = summarize(study).leaderboard[0].trials[0]
    forge(study, record.OUTCOME, {}, best)
    (export,) = of_best(study, sqlite_url)
    assert best not in {run.trial for run in export.runs}
    with pytest.raises(ValueError, match=f"trial {best} ") as refused:
        of_trial(study, sqlite_url, best)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("key", OF_TRIALS)
def test_an_export_of_a_trial_that_is_made_up_is_made_or_refused_in_one_line(
    study: SearchStudy, key: str, sqlite_url: str
) -> None:
    genuine = study.trials()[FORGED].user_attrs.get(key)
    parts = [{**genuine, part: value} for part in WITHIN.get(key, ()) for value in IN_PLACE_OF_A_PART]
    for value in (*MADE_UP, *parts):
        forge(study, key, value, FORGED)
        lines = refusal(lambda: as_yaml(of_trial(study, sqlite_url, FORGED))).splitlines()
        assert len(lines) <= 1
        assert all(f"trial {FORGED}" in line for line in lines), lines
