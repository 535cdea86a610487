"""A disk that is full under a database: calls wait for room, and what was written stays valid."""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from private_servers import SERVERS, MissingError, PrivateServer, private_server

from studies.storage import open_storage

WRITER = """
import json, resource, sys, threading
import optuna
from studies.storage import OutageError, open_storage

optuna.logging.set_verbosity(optuna.logging.WARNING)
url, outage, room_after = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
storage = open_storage(url, create=True, outage=outage)
study = optuna.create_study(study_name="s", storage=storage)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
made_room = threading.Event()

def make_room():
    made_room.set()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

timer = threading.Timer(room_after, make_room)
timer.daemon = True
timer.start()
written, error = 0, None
try:
    for number in range(40):
        study.set_user_attr(f"note {number}", "x" * 20_000)
        written += 1
except OutageError as caught:
    error = str(caught)
print(json.dumps({"written": written, "error": error, "waited": made_room.is_set()}), flush=True)
timer.cancel()
"""


def write_until_full(url: str, outage: float, room_after: float) -> dict[str, object]:
    command = [sys.executable, "-c", WRITER, url, str(outage), str(room_after)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def notes(url: str) -> int:
    """How many notes the database holds, which must be whole."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with closing(open_storage(url, create=False)) as storage:
        kept = storage.get_study_user_attrs(1)
    assert set(kept.values()) == {"x" * 20_000}
    return len(kept)


def test_full_disk_is_waited_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    answer = write_until_full(url, outage=60, room_after=1.5)
    assert answer == {"written": 40, "error": None, "waited": True}
    assert notes(url) == 40


def test_disk_that_stays_full_is_one_clean_line_and_what_was_written_is_valid(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    answer = write_until_full(url, outage=0.5, room_after=3600)
    assert str(answer["error"]).startswith(
        f"storage {url.replace('sqlite', 'sqlite+pysqlite')}: could not be used for 0.5 s: "
    )
    assert "\n" not in str(answer["error"])
    assert 0 < int(str(answer["written"])) < 40
    assert notes(url) == answer["written"]


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 400 MB of its own, which only the superuser may make."""
    with tempfile.TemporaryDirectory(prefix="cifar-search-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=400m,mode=755", "tmpfs", folder]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("no disk of its own can be mounted here")
        Path(folder).chmod(0o755)
        yield Path(folder)
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("backend", SERVERS)
def test_full_disk_of_a_server_is_waited_for(backend: str, small_disk: Path) -> None:
    try:
        with private_server(backend, small_disk) as server:
            write_to_a_full_disk(server, small_disk / "filler")
    except MissingError as error:
        pytest.skip(str(error))


def write_to_a_full_disk(server: PrivateServer, filler: Path) -> None:
    """Write more than there is room for; make room, with what an operator would do, once nothing goes on."""
    pieces = [secrets.token_hex(20_000) for _ in range(400)]
    written: list[str] = []
    with closing(open_storage(server.url, create=True)) as storage:
        study = optuna.create_study(study_name="s", storage=storage)

        def write() -> None:
            for number, piece in enumerate(pieces):
                study.set_user_attr(f"note {number}", piece)
                written.append(piece)

        fill(filler)
        writer = threading.Thread(target=write)
        writer.start()
        stuck_at = stalled(written)
        assert stuck_at < len(pieces)
        filler.unlink()
        deadline = time.monotonic() + 60
        while writer.is_alive() and time.monotonic() < deadline:
            if server.has_ended():  # servers do, where their own logs cannot be written
                server.start()
            writer.join(0.1)
        assert written == pieces
    with closing(open_storage(server.url, create=False)) as again:
        kept = again.get_study_user_attrs(study._study_id)
    assert [kept[f"note {number}"] for number in range(len(pieces))] == pieces


def fill(filler: Path) -> None:
    """Leave 2 MB of room."""
    free = shutil.disk_usage(filler.parent).free
    with filler.open("wb") as file:
        for _ in range((free - 2_000_000) // 1_000_000):
            file.write(bytes(1_000_000))


def stalled(written: list[str]) -> int:
    """How much was written when nothing more was for five seconds."""
    count, since, deadline = len(written), time.monotonic(), time.monotonic() + 120
    while time.monotonic() - since < 5:
        assert time.monotonic() < deadline, "the disk was never full"
        if len(written) != count:
            count, since = len(written), time.monotonic()
        time.sleep(0.1)
    return count
