"""Commands that only read, and refusals, leave an SQLite database and the files beside it as they were."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import warm
from made_studies import FREE, GRID, make_study, run_all

from studies.hosts import host_file, this_host
from studies.sqlite import reader
from studies.storage import open_storage

READING = [
    ["studies"],
    ["show", "s"],
    ["effects", "s"],
    ["export", "s", "-o", "../out/best.yaml"],
    ["report", "s", "-o", "../out/report.html"],
]
REFUSED = [
    ["show", "none"],
    ["worker", "none"],
    ["worker", "s", "--dataset", "digits"],
    ["confirm", "none"],
    ["confirm", "s", "--per-level", "none"],
    ["confirm", "s", "--dataset", "digits"],
    ["ablate", "none"],
    ["ablate", "s", "--dataset", "digits"],
    ["note", "none", "A note."],
    ["note", "s", "A note.", "--trial", "99"],
    ["run", "--space", "free.yaml", "--dataset", "digits", "--study", "s"],
]


def files(folder: Path, *without: str) -> dict[str, tuple[str, int]]:
    """A digest and the time of change of every file. Another process reads them: this one may hold locks."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in without)
    digests = subprocess.check_output(["sha256sum", *names], cwd=folder, text=True).splitlines()
    return {
        name: (digest, (folder / name).stat().st_mtime_ns)
        for name, digest in zip(names, digests, strict=True)
    }


@pytest.fixture(params=["at rest", "left by a killed process", "beside a writer"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder with the database of a study, last written to before the machine was started again."""
    made, found = tmp_path / "made", tmp_path / "found"
    made.mkdir()
    (made / "free.yaml").write_text(FREE)
    (tmp_path / "out").mkdir()
    with ExitStack() as at_work:
        storage = at_work.enter_context(
            closing(open_storage(f"sqlite:///{made}/cifar-search.db", create=True))
        )
        run_all(make_study(storage, GRID, 6, "s"), lambda drawn: 0.3 + drawn["model.dropout"])
        host = this_host().model_copy(update={"boot": "an earlier one"})
        host_file(made / "cifar-search.db").write_text(json.dumps(host.model_dump()))
        if request.param == "at rest":
            at_work.close()
        subprocess.run(["cp", "-r", made, found], check=True)
        if request.param == "left by a killed process":
            at_work.close()
        yield made if request.param == "beside a writer" else found


@pytest.mark.slow
def test_commands_that_only_read_and_refusals_change_nothing(folder: Path, tmp_path: Path) -> None:
    without = ["cifar-search.db-shm"] if folder.name == "made" else []
    before = files(folder, *without)
    for words in READING + REFUSED:
        done = warm.run(words, cwd=folder, env={**os.environ, "CIFAR_SEARCH_DATA": str(tmp_path / "d")})
        assert done.returncode == (2 if words in REFUSED else 0), done.stderr
        assert files(folder, *without) == before, words
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"best.yaml", "report.html"}


def test_a_log_that_a_killed_process_left_is_read_and_not_folded_in(folder: Path) -> None:
    path = folder / "cifar-search.db"
    before = files(folder, "cifar-search.db-shm")
    with closing(reader(path, joining=True)) as connection:
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (6,)
    assert files(folder, "cifar-search.db-shm") == before


def test_whoever_reads_beside_a_writer_folds_its_log_in_where_it_ends_first(tmp_path: Path) -> None:
    path = tmp_path / "cifar-search.db"
    storage = open_storage(f"sqlite:///{path}", create=True)
    make_study(storage, GRID, 6, "s")
    with closing(reader(path, joining=True)) as connection:
        assert connection.execute("SELECT count(*) FROM studies").fetchone() == (1,)
        storage.close()
    assert {file.name for file in tmp_path.iterdir()} == {path.name, f"{path.name}.lock", f"{path.name}.host"}
