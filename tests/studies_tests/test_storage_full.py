"""A disk that is full under an SQLite database: calls wait for room, and what was written stays valid."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

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
