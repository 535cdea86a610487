"""Databases that an earlier version made: opened as they are, told of in the same words, and continued."""

from __future__ import annotations

import gzip
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from commands import called
from running import Command, data_folder, start
from sqlalchemy.engine import make_url
from stored.told import read, told

from studies.storage import open_storage

__all__ = ["data_folder", "start"]

STORED = Path(__file__).parent / "stored"
SEARCH = "regularization-digits"
RUN = ["run", "--space", "regularization", "--dataset", "digits", "--epochs", "1", "--train-size", "300"]
STRING = {"postgresql": r"'[^']*'", "mysql": r"'(?:[^'\\]|\\.)*'"}
"""A string in a dump, or the half of one before a quote that is doubled."""


@dataclass(frozen=True)
class Restored:
    """A stored database in a new place, and what the version that made it told of it."""

    url: str
    expected: dict[str, Any]

    def rows(self) -> dict[str, list[str]]:
        """All rows of all tables."""
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            tables = sa.inspect(connection).get_table_names()
            rows = {name: connection.execute(sa.text(f"SELECT * FROM {name}")) for name in tables}
            return {name: sorted(map(repr, found)) for name, found in rows.items()}


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def restored(request: pytest.FixtureRequest) -> Restored:
    """The stored database of each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    if request.param == "sqlite":
        file_of(url).write_bytes(unpacked("sqlite.db"))
    else:
        fill(url, unpacked(f"{request.param}.sql").decode())
    return Restored(url, read(unpacked(f"{request.param}.json").decode()))


def unpacked(name: str) -> bytes:
    return gzip.decompress((STORED / f"{name}.gz").read_bytes())


def file_of(url: str) -> Path:
    return Path(make_url(url).database or "")


def fill(url: str, dump: str) -> None:
    """Run the statements of a dump, on one connection."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, execution_options={"no_parameters": True})
    string = STRING[engine.url.get_backend_name()]
    with engine.begin() as connection:
        for statement in re.findall(rf"(?:{string}|[^';])+;\n", dump):
            connection.exec_driver_sql(statement)


def lost(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Where something that was told is told no more, or otherwise; what is told beside it may be new."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key, "nothing"), f"{place}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{place}/{index}")
    elif before != after:
        yield f"{place}: {before!r} became {after!r}"


def test_everything_is_told_in_the_same_words_and_nothing_is_changed_by_it(restored: Restored) -> None:
    rows = restored.rows()
    assert rows["trials"]
    assert list(lost(restored.expected, told(restored.url))) == []
    with closing(open_storage(restored.url, create=True)):
        pass
    assert restored.rows() == rows


def test_what_is_stored_holds_all_that_a_database_may_hold(restored: Restored) -> None:
    search, *others = (restored.expected["studies"][each["name"]] for each in restored.expected["listed"])
    states = [trial["state"] for trial in search["trials"]]
    assert {"COMPLETE", "FAIL", "RUNNING", "WAITING"} == set(states)
    for key in ("note", "looks", "finalists", "ablation"):
        assert search[key], key
    assert any(search["trial notes"])
    assert search["closed"] == search["total"] - 1
    assert "refusal" in others[-1]


def test_reading_leaves_a_file_and_its_folder_as_they_are(sqlite_url: str, tmp_path: Path) -> None:
    file = file_of(sqlite_url)
    file.write_bytes(unpacked("sqlite.db"))
    os.utime(file, ns=(0, 10**18))
    told(sqlite_url)
    assert file.read_bytes() == unpacked("sqlite.db")
    assert file.stat().st_mtime_ns == 10**18
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.slow
def test_its_search_goes_on_to_its_total(restored: Restored, start: Callable[..., Command]) -> None:
    command = start(*RUN, "--trials", "6", "--workers", "1", "--storage", restored.url)
    assert command.ended() == 0, command.output
    assert "6 of 6 trials closed" in command.output
    now = told(restored.url)["studies"]
    before = restored.expected["studies"]
    assert list(lost({**before, SEARCH: {}}, now)) == []
    for key in ("record", "mark", "total", "note", "looks", "finalists", "ablation"):
        assert list(lost(before[SEARCH][key], now[SEARCH][key], key)) == []
    assert now[SEARCH]["closed"] == 6

    then, trials = before[SEARCH]["trials"], now[SEARCH]["trials"]
    ended = [index for index, trial in enumerate(then) if trial["state"] in ("COMPLETE", "PRUNED", "FAIL")]
    assert [trials[index] for index in ended] == [then[index] for index in ended]
    of_the_dead, queued, retry = trials[len(ended) :]
    assert of_the_dead["user attributes"]["outcome"]["reason"] in ("killed", "lost")
    assert retry["user attributes"]["slot"] == of_the_dead["user attributes"]["slot"] == 5
    assert retry["state"] in ("COMPLETE", "PRUNED")
    assert queued == then[len(ended) + 1]  # it waits for a larger total


@pytest.mark.slow
def test_its_search_is_renamed_with_its_repetitions_and_deleted(restored: Restored, tmp_path: Path) -> None:
    def done(*words: str) -> None:
        code, _, error = called(
            tmp_path, *words, "--storage", restored.url, CIFAR_SEARCH_SHARED=str(tmp_path)
        )
        assert code == 0, error

    before = restored.expected["studies"]
    others = {name: study for name, study in before.items() if not name.startswith(SEARCH)}
    done("stop", SEARCH)
    done("rename", SEARCH, "other")
    now = told(restored.url)["studies"]
    assert list(lost(others, now)) == []
    assert now.keys() - others.keys() == {"other", "other/confirm", "other/ablate"}
    assert now["other/confirm"]["record"]["parent"] == "other"
    for key in ("record", "mark", "total", "note", "looks"):
        assert list(lost(before[SEARCH][key], now["other"][key], key)) == []
    for key in ("finalists", "ablation"):
        renamed = json.loads(json.dumps(now["other"][key]).replace('"other', f'"{SEARCH}'))
        assert list(lost(before[SEARCH][key], renamed, key)) == []
    done("delete", "other", "--yes")
    assert told(restored.url)["studies"].keys() == others.keys()


@pytest.mark.slow
def test_a_file_that_is_continued_keeps_its_rights_and_its_mode(
    sqlite_url: str, start: Callable[..., Command]
) -> None:
    file = file_of(sqlite_url)
    file.write_bytes(unpacked("sqlite.db"))
    file.chmod(0o640)
    command = start("note", SEARCH, "Continued.", "--storage", sqlite_url)
    assert command.ended() == 0, command.output
    assert file.stat().st_mode & 0o777 == 0o640
    assert not file.with_name(f"{file.name}-wal").exists()
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
