"""``cifar-search effects``: what it prints of a real database, as tables and as JSON, and what it refuses."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from made_studies import BALANCED, FREE, claim, end, make_study, run_all
from optuna.storages import RDBStorage
from rich.console import Console
from typer.testing import CliRunner

from search.cli import app
from search.effects import show_effects
from search.effects_view import effects_view
from studies.effects import read_effects
from studies.finalists import choose_per_level, confirm_name, remember_choices
from studies.plan import PlanRecord, open_plan
from studies.record import SplitSpec
from studies.storage import open_storage
from studies.study import SearchStudy

NOISE = (0.001, -0.002, 0.002, 0.0, -0.001, 0.003, 0.002, -0.003, 0.001)
EVIL = """
question: "[bold]Which[/bold] preset? [/]"
base: {training: {epochs: 4}}
balance: preset
parameters:
  preset:
    choice: {"[red]plain[/red]": {}, "[/nothing]": {model.dropout: 0.2}}
    role: scientific
  optimizer.lr: {float: [1e-3, 1.0], log: true, role: nuisance}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('effects') / 'studies.db'}"


@pytest.fixture(scope="module")
def storage(url: str) -> Iterator[RDBStorage]:
    with closing(open_storage(url, create=True)) as opened:
        yield opened


@pytest.fixture(scope="module")
def study(storage: RDBStorage) -> SearchStudy:
    """A balanced comparison, of whose levels the best were confirmed on three seeds: adam and sgd about
    alike, rmsprop far behind."""
    study = make_study(storage, BALANCED, 18, name="which")
    bonus = {"sgd": 0.0, "adam": 0.01, "rmsprop": -0.2}
    numbers = iter(range(100))
    run_all(study, lambda values: 0.7 + bonus[values["optimizer.name"]] + 0.01 * (next(numbers) % 5))
    confirm(study, [0.705, 0.71, 0.50])
    return study


def confirm(study: SearchStudy, means: list[float]) -> None:
    """Repeat the best of each optimizer on three blocks, of one level after the other."""
    planned = PlanRecord(
        kind="confirm", parent=study.name, question="?", data=study.data,
        split=SplitSpec(seed=5, val_size=100), folds=None, epochs=4,
    )  # fmt: skip
    choices = choose_per_level(study, "optimizer.name")
    plan = open_plan(study.storage, confirm_name(study.name, None), planned)
    plan.owe([choice.planned() for choice in choices], 3)
    remember_choices(plan, choices, "optimizer.name")
    for slot in range(9):
        end(plan, claim(plan, "random"), "finished", means[slot % 3] + NOISE[slot])


def printed(url: str, *words: str) -> str:
    result = CliRunner().invoke(app, ["effects", *words, "--storage", url], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_answer_comes_first_then_how_the_search_went(study: SearchStudy, url: str) -> None:
    text = printed(url, "which")
    answer = "optimizer.name: adam has the best mean, 70.80 % of 3 run(s), but is not distinguished from sgd"
    assert text.index(answer) < text.index("the rest tuned within each level, equal budgets")
    adam, sgd, rmsprop = _rows(text.splitlines())
    assert "70.80 % ± 0.10" in adam
    assert "best" in adam
    assert "not distinguished" in sgd
    assert "worse" in rmsprop
    assert "on 3 fresh seed(s) and split(s)" in text


def _rows(lines: list[str]) -> list[str]:
    """Rows of the table of confirmed levels, in its order."""
    start = next(index for index, line in enumerate(lines) if "minus the best" in line)
    return [line for line in lines[start + 1 :] if "│" in line][:3]


def test_it_ends_with_the_command_that_settles_what_is_open(study: SearchStudy, url: str) -> None:
    last = printed(url, "which").rstrip().splitlines()
    command = f"cifar-search confirm which --per-level optimizer.name --seeds 6 --storage {url}"
    assert last[-3].strip() == command
    assert last[-1].strip() == f"cifar-search ablate which --seeds 3 --storage {url}"


def test_heat_maps_are_readable_without_colour(study: SearchStudy) -> None:
    console = Console(width=140, color_system=None, file=io.StringIO(), record=True)
    console.print(effects_view(read_effects(study, resamples=2)))
    text = console.export_text()
    title = "optimizer.name (rows) by optimizer.lr (columns)"
    assert title in text
    table = text[text.index(title) :]
    assert "lower third" in table
    assert "█ 7" in table  # the best cell, with its mean
    assert "▁ 5" in table  # the worst
    assert "n 1" in table or "n 2" in table


def test_heat_maps_are_shaded_where_there_are_colours(study: SearchStudy) -> None:
    file = io.StringIO()
    console = Console(width=140, color_system="truecolor", force_terminal=True, file=file)
    console.print(effects_view(read_effects(study, resamples=2)))
    styled = file.getvalue()
    assert "48;2;92;200;122m" in styled  # the best cell's green
    assert "48;2;230;230;230m" in styled  # the worst cell's grey


def test_json_says_the_same(study: SearchStudy, url: str) -> None:
    told = json.loads(printed(url, "which", "--json"))
    (effect,) = told["parameters"]
    assert (effect["parameter"], effect["sampling"], effect["confirmed"]) == (
        "optimizer.name",
        "balanced",
        True,
    )
    by_level = {level["level"]: level for level in effect["levels"]}
    assert by_level["rmsprop"]["confirmed"]["distinguished"]
    assert not by_level["sgd"]["confirmed"]["distinguished"]
    assert by_level["adam"]["trials"] == 6
    assert told["importances"]["trials"] == 18
    assert told["next"][0]["command"].endswith(f"--seeds 6 --storage {url}")


def test_a_free_search_is_described_and_sent_to_its_finalists(storage: RDBStorage, url: str) -> None:
    study = make_study(storage, FREE, 3, name="free", sampler="tpe")
    end(study, claim(study), "pruned")
    end(study, claim(study), "diverged", epochs=1)
    run_all(study, lambda _: 0.5)
    text = printed(url, "free")
    assert "described, not tested" in text
    assert "no intervals for levels: trials were drawn by tpe" in text
    assert "no importances: there are 1 completed trials" in text
    assert f"cifar-search confirm free --top 5 --seeds 5 --storage {url}" in text


def test_names_are_not_read_as_markup(storage: RDBStorage, url: str) -> None:
    study = make_study(storage, EVIL, 12, name="[bold red]mine[/]")
    numbers = iter(range(100))
    run_all(study, lambda _: 0.5 + next(numbers) / 100)
    text = printed(url, "[bold red]mine[/]")
    assert "question: [bold]Which[/bold] preset? [/]" in text
    assert "│ [red]plain[/red] │" in text
    assert "│ [/nothing]" in text
    assert "preset (rows) by optimizer.lr (columns)" in text
    assert "cifar-search confirm '[bold red]mine[/]' --per-level preset" in text
    assert json.loads(printed(url, "[bold red]mine[/]", "--json"))["study"] == "[bold red]mine[/]"


def test_an_unknown_study_is_refused_with_those_that_there_are(study: SearchStudy, url: str) -> None:
    with pytest.raises(ValueError, match=r"unknown study 'wich'.*did you mean 'which'"):
        CliRunner().invoke(app, ["effects", "wich", "--storage", url], catch_exceptions=False)


def test_a_password_stays_in_the_environment(
    study: SearchStudy, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "postgresql://someone:s3cret@nowhere/studies"
    monkeypatch.setattr("search.effects.open_storage", lambda *_, **__: study.storage)
    show_effects(secret, "which", as_json=False)
    text = capsys.readouterr().out
    assert "s3cret" not in text
    assert '--storage "$CIFAR_SEARCH_STORAGE"' in text
