"""SQLite files serve one host, which they remember."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from studies.hosts import Host, host_file, this_host
from studies.storage import StorageError, open_storage, probe

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file with a study, that serves this host."""
    path = tmp_path / "a.db"
    with closing(open_storage(f"sqlite:///{path}", create=True)) as storage:
        optuna.create_study(study_name="s", storage=storage)
    return path


def give_to(path: Path, host: Host) -> None:
    """Let the file serve another host."""
    host_file(path).write_text(host.model_dump_json())


ELSEWHERE = Host(name="elsewhere", machine="5a", boot="1")


def test_worker_on_another_host_is_refused_with_reason_and_remedy(database: Path) -> None:
    give_to(database, ELSEWHERE)
    url, before = f"sqlite:///{database}", database.read_bytes()
    for refused in (
        lambda: open_storage(url, create=False, write=True),
        lambda: open_storage(url, create=True),
        lambda: probe(url),
    ):
        with pytest.raises(StorageError, match="serves the host 'elsewhere', but this is") as caught:
            refused()
        message = str(caught.value)
        assert "does not hold on network file systems" in message
        assert message.endswith(f"delete {host_file(database)}")
        assert "\n" not in message
    assert database.read_bytes() == before
    assert Host.model_validate_json(host_file(database).read_text()) == ELSEWHERE


def test_any_host_reads(database: Path) -> None:
    give_to(database, ELSEWHERE)
    with closing(open_storage(f"sqlite:///{database}", create=False)) as storage:
        assert len(storage.get_all_studies()) == 1


def test_file_that_was_moved_is_taken_over_by_the_remedy(database: Path) -> None:
    give_to(database, ELSEWHERE)
    host_file(database).unlink()
    open_storage(f"sqlite:///{database}", create=False, write=True).close()
    assert Host.model_validate_json(host_file(database).read_text()) == this_host()


def test_copy_of_the_database_alone_serves_whom_it_is_given_to(database: Path, tmp_path: Path) -> None:
    give_to(database, ELSEWHERE)
    shutil.copy(database, tmp_path / "copy.db")
    open_storage(f"sqlite:///{tmp_path}/copy.db", create=False, write=True).close()


def test_reading_remembers_no_host(database: Path) -> None:
    host_file(database).unlink()
    open_storage(f"sqlite:///{database}", create=False).close()
    assert not host_file(database).exists()


def test_link_to_the_database_finds_its_host(database: Path, tmp_path: Path) -> None:
    give_to(database, ELSEWHERE)
    (tmp_path / "link.db").symlink_to(database)
    with pytest.raises(StorageError, match="serves the host"):
        open_storage(f"sqlite:///{tmp_path}/link.db", create=False, write=True)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"boot": "2"}, True),  # started again
        ({"name": "b", "machine": ""}, True),  # another container
        ({"name": "b", "boot": "2"}, False),  # another machine, started from the same image
        ({"machine": "m2", "boot": "2"}, False),  # another machine of the same name
    ],
)
def test_hosts_are_told_apart(change: dict[str, str], same: bool) -> None:
    host = Host(name="a", machine="m", boot="1")
    assert host.is_same(host.model_copy(update=change)) is same


def test_hosts_of_which_nothing_is_known_but_their_names() -> None:
    assert Host(name="a").is_same(Host(name="a"))
    assert not Host(name="a").is_same(Host(name="b"))


def test_restart_of_the_host_is_remembered(database: Path) -> None:
    give_to(database, this_host().model_copy(update={"boot": "an earlier one"}))
    open_storage(f"sqlite:///{database}", create=False, write=True).close()
    assert Host.model_validate_json(host_file(database).read_text()) == this_host()


@pytest.mark.parametrize("text", ["", "{", json.dumps({"name": 3}), "\x00\xff"])
def test_memory_that_was_changed_by_hand_is_one_clean_line(database: Path, text: str) -> None:
    host_file(database).write_text(text)
    with pytest.raises(StorageError, match=r"a\.db\.host does not name a host: delete it$"):
        open_storage(f"sqlite:///{database}", create=False, write=True)


def test_this_host_is_known_here() -> None:
    assert this_host().name == os.uname().nodename
    assert this_host().boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
