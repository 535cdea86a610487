"""Makes the stored databases and what is told of them, with the version of the program in a checkout:

    python tests/studies_tests/stored/make.py CHECKOUT

needs the servers of the tests (``tests/servers.py``), ``pg_dump`` and ``mariadb-dump``, and takes ten minutes
on two cores. Every step is a process of its own with that version's packages.
"""

from __future__ import annotations

import gzip
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL, make_url

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1]))
from servers import MYSQL, POSTGRES, new_database  # noqa: E402 (found beside all tests)

SEARCH = "regularization-digits"
SEARCHING = [
    *("run", "--space", "regularization", "--dataset", "digits"),
    *("--epochs", "1", "--train-size", "300", "--device", "cpu"),
]


class Old:
    """The version of the program in a checkout, at work on one database."""

    def __init__(self, checkout: Path, folder: Path, url: str) -> None:
        self._folder, self._url = folder, url
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(checkout),
            "CIFAR_SEARCH_STORAGE": url,
            "CIFAR_SEARCH_DATA": str(folder / "data"),
        }

    def program(self, *words: str) -> str:
        """Run Python with these words, to a good end; what it printed."""
        done = subprocess.run(
            [sys.executable, *words], cwd=self._folder, env=self._environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def type(self, *words: str) -> None:
        """Run a command of the program."""
        self.program("-m", "search.cli", *words)

    def leave(self, study: str, way: str) -> None:
        """Leave something unfinished or foreign."""
        self.program(str(HERE / "leave.py"), self._url, study, way)

    def told(self) -> bytes:
        """What this version tells of the database."""
        return self.program(str(HERE / "told.py"), self._url).encode()


def make(old: Old) -> None:
    """All that a database may hold."""
    old.type(*SEARCHING, "--trials", "5", "--workers", "0")
    old.leave(SEARCH, "interrupted")
    old.leave(SEARCH, "killed")
    old.type(*SEARCHING, "--trials", "5", "--workers", "1")
    old.type("confirm", SEARCH, "--top", "2", "--seeds", "2", "--workers", "1")
    old.type("ablate", SEARCH, "--seeds", "1", "--workers", "1")
    old.type("note", SEARCH, 'An author\'s words; with "marks", 100 % and\nlines:\n\n- größer')
    old.type("note", SEARCH, "--trial", "3", "On a trial: été \\ 数.")
    old.type("export", SEARCH, "--confirmed", "-o", "best.yaml")
    old.type("retrain", "best.yaml", "--seeds", "1", "-o", "runs/best")
    old.type(*SEARCHING, "--study", "Größe été 数", "--sampler", "random", "--trials", "1", "--workers", "1")
    old.leave("another program's", "foreign")
    old.type(*SEARCHING, "--trials", "6", "--workers", "0")
    old.leave(SEARCH, "killed")
    old.leave(SEARCH, "queued")


def sqlite_file(url: str) -> bytes:
    """The file, as small as it gets."""
    path = make_url(url).database
    assert path
    with closing(sqlite3.connect(path)) as database:
        database.execute("VACUUM")
    return Path(path).read_bytes()


def postgres_dump(url: str) -> bytes:
    """Statements that every version of the server takes, each ended by a semicolon and a line's end."""
    server = make_url(url)
    words = ["pg_dump", "--inserts", "--no-owner", "--no-privileges", _uri(server)]
    dump = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    quoted = r"('(?:[^']|'')*')"
    bare = re.sub(rf"{quoted}|^(?:--|\\).*\n", r"\1", dump, flags=re.MULTILINE)
    settings = r"^(?:SET .*|SELECT pg_catalog\.set_config\(.*);\n"
    return re.sub(rf"{quoted}|{settings}|^\n+", r"\1", bare, flags=re.MULTILINE).encode()


def mysql_dump(url: str) -> bytes:
    """As ``postgres_dump``; tables come before those that they refer to."""
    server = make_url(url)
    words = ["mariadb-dump", "--skip-extended-insert", "--compact", "--default-character-set=utf8mb4"]
    words += [f"--host={server.host}", f"--port={server.port or 3306}", f"--user={server.username}"]
    words += [f"--password={server.password}"] if server.password else []
    words += [str(server.database)]
    dump = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    lines = [line for line in dump.splitlines(keepends=True) if not line.startswith("/*")]
    return (
        "".join(["SET FOREIGN_KEY_CHECKS = 0;\n", *lines]).replace(" COLLATE=utf8mb4_general_ci", "").encode()
    )


def _uri(server: URL) -> str:
    return server.set(drivername="postgresql").render_as_string(hide_password=False)


def keep(name: str, content: bytes) -> None:
    """Store a file, in the same bytes for the same content."""
    (HERE / f"{name}.gz").write_bytes(gzip.compress(content, 9, mtime=0))


def main(checkout: Path) -> None:
    """Make and store a database of each kind, and what is told of it."""
    with tempfile.TemporaryDirectory() as folder:
        _store("sqlite", checkout, Path(folder), f"sqlite:///{folder}/studies.db", sqlite_file)
    for kind, server, dump in (("postgres", POSTGRES, postgres_dump), ("mysql", MYSQL, mysql_dump)):
        with tempfile.TemporaryDirectory() as folder, new_database(server) as url:
            _store(kind, checkout, Path(folder), url, dump)


def _store(kind: str, checkout: Path, folder: Path, url: str, dump: Callable[[str], bytes]) -> None:
    old = Old(checkout, folder, url)
    make(old)
    told = old.told()
    keep("sqlite.db" if kind == "sqlite" else f"{kind}.sql", dump(url))
    keep(f"{kind}.json", told)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
