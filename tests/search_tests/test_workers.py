"""Local worker processes: what one says that cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from made_studies import FREE, make_study

from studies.storage import open_storage

SCRIPT = """
import sys
from search.data.request import DataRequest
from search.placement import Placement
from search.workers import WorkerOrder, Workers, prepare_workers

if __name__ == "__main__":
    prepare_workers()
    order = WorkerOrder(sys.argv[1], "s", DataRequest("digits"), Placement(("cpu",), 1), "random", "none")
    workers, dead = Workers(order), []
    while not dead:
        workers.wait(60)
        dead = workers.collect_dead()
"""


def said_by_a_worker(folder: Path, url: str) -> str:
    """The one line of a worker that ends at once."""
    (folder / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "CIFAR_SEARCH_DATA": str(folder / "data")}
    words = [sys.executable, str(folder / "script.py"), url]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    return line


def test_a_worker_without_its_database_ends_with_one_line(tmp_path: Path) -> None:
    line = said_by_a_worker(tmp_path, f"sqlite:///{tmp_path / 'gone.db'}")
    assert line.startswith("cifar-search: a worker ends: storage sqlite")
    assert line.endswith("gone.db: the file does not exist")


@pytest.mark.slow
def test_a_worker_that_reads_other_images_than_the_study_has_ends_with_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    with closing(open_storage(url, create=True)) as storage:
        make_study(storage, FREE, 2, "s")
    line = said_by_a_worker(tmp_path, url)
    assert line.startswith("cifar-search: a worker ends: ")
    assert "hash" in line
    with closing(open_storage(url, create=False)) as storage:
        assert storage.get_all_trials(1) == []
