"""Commands on names and texts that a database may not tell apart, not hold, or not hold in one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from charsets import database_of
from commands import refused
from dashboard_studies import make_plan, make_search
from PIL import Image
from running import TINY, Command, data_folder, start

from studies.storage import open_storage
from studies.study import SearchStudy

__all__ = ["data_folder", "start"]
pytestmark = pytest.mark.slow
SHORT = ("--val-size", "0.5", "--epochs", "1", "--trials", "1", "--workers", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def two_studies() -> Iterator[str]:
    """A MySQL database with a search and its confirmation."""
    with database_of("mysql") as url:
        with closing(open_storage(url, create=True)) as storage:
            make_plan(storage, make_search(storage, "digits", 10))
        yield url


@pytest.mark.parametrize("spelling", ["Digits", "dígits"])
@pytest.mark.parametrize(
    "words",
    [
        ("show", "{}"), ("show", "{}/confirm"), ("effects", "{}"), ("export", "{}", "-o", "best.yaml"),
        ("report", "{}", "-o", "report.html"), ("note", "{}", "a note"), ("confirm", "{}"), ("ablate", "{}"),
        ("note", "{}", "a note", "--trial", "1"), ("worker", "{}"), ("worker", "{}/confirm"),
        ("run", "--space", "regularization", "--dataset", "digits", "--study", "{}", *SHORT),
    ],
    ids=lambda words: " ".join(words[:2]),
)  # fmt: skip
def test_every_command_refuses_another_spelling_with_the_one_that_is_there(
    two_studies: str, spelling: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    typed = [word.format(spelling) for word in words]
    line = refused(tmp_path, *typed, "--storage", two_studies)
    there = "digits/confirm" if words[1] == "{}/confirm" else "digits"
    assert f"holds the study '{there}', whose name" in line
    with closing(open_storage(two_studies, create=False)) as storage:
        assert [study.study_name for study in storage.get_all_studies()] == ["digits", "digits/confirm"]


def make_images(root: Path, classes: list[str], count: int) -> None:
    """So many images of 4x4 pixels of each class."""
    generator = np.random.default_rng(0)
    for name in classes:
        (root / "train" / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(pixels).save(root / "train" / name / f"{number}.png")


def completed(command: Command) -> str:
    """What a command says that ends well."""
    assert command.ended() == 0, command.output
    return command.output


@pytest.mark.parametrize("kind", ["mysql-latin1", "mysql-utf8mb3", "postgres-latin1"])
def test_a_data_set_whose_name_the_database_cannot_hold_needs_a_name_for_the_study(
    kind: str, tmp_path: Path, start: Callable[..., Command]
) -> None:
    name = "犬と猫" if "latin1" in kind else "🐶🐱"
    make_images(tmp_path / name, ["犬 🐶", "猫 🐱"], 80)
    with database_of(kind) as url:
        words = ("run", "--space", "./tiny.yaml", "--dataset", name, *SHORT, "--storage", url)
        unnamed = start(*words)
        assert unnamed.ended() == 2, unnamed.output
        *_, line = unnamed.output.splitlines()
        assert "character set cannot hold the name" in line
        assert "--study NAME" in line
        assert "Traceback" not in unnamed.output
        with closing(open_storage(url, create=False)) as storage:
            assert storage.get_all_studies() == []
        completed(start(*words, "--study", "pets"))
        completed(start("note", "pets", "犬と猫 🐶", "--storage", url))
        assert name in completed(start("show", "pets", "--storage", url))
        completed(start("report", "pets", "-o", "report.html", "--storage", url))
        report = (tmp_path / "report.html").read_text()
        assert "犬と猫 🐶" in report
        with closing(open_storage(url, create=False)) as storage:
            assert set(SearchStudy(storage, "pets").data.classes) == {"犬 🐶", "猫 🐱"}


def test_a_search_of_very_many_long_names_and_texts_runs_and_is_told(
    mysql_url: str, tmp_path: Path, start: Callable[..., Command]
) -> None:
    classes = [f"{number:03} {'x' * 200}" for number in range(400)]
    make_images(tmp_path / "many", classes, 4)
    space = TINY.replace("Which learning rate?", f"Which learning rate? {'Really. ' * 12_000}")
    (tmp_path / "long.yaml").write_text(space)
    where = ("--storage", mysql_url)
    completed(start("run", "--study", "s", "--space", "./long.yaml", "--dataset", "many", *SHORT, *where))
    for words in (
        ("show", "s", "--json"), ("effects", "s"), ("note", "s", "x" * 20_000),
        ("report", "s", "-o", "r.html"), ("export", "s", "-o", "b.yaml"),
        ("confirm", "s", "--top", "1", "--seeds", "2", "--workers", "1"), ("show", "s/confirm"),
    ):  # fmt: skip
        completed(start(*words, *where))
    completed(start("verify", "b.yaml"))
    with closing(open_storage(mysql_url, create=False)) as storage:
        assert list(SearchStudy(storage, "s").data.classes) == classes
