"""The dashboard at rest: its refresher's look at a database in which nothing changes, as processor time for
as many looks as it takes a minute. What it would write at the first look is left out.

    python tests/benchmarks/dashboard_at_rest.py sqlite:///FILE

``large_databases.py`` runs it with the code of this checkout, and of an older one.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from search.dashboard import refresh
from studies.storage import open_storage

LOOKS = 3
"""Of which the median counts."""


class Idle(refresh.Refresher):
    """One that takes all for written."""

    def _write(self, *_: Any) -> bool:
        return True


def main(url: str) -> None:
    """Print the figures as JSON."""
    with closing(open_storage(url, create=False, write=True)) as storage:
        refresher = Idle(url, Path(tempfile.gettempdir()), print)
        refresher.refresh(storage)
        took = sorted(timed(lambda: refresher.refresh(storage)) for _ in range(LOOKS))[LOOKS // 2]
    every = took[0] + max(refresh.INTERVAL, refresh.REST * took[0])
    print(json.dumps({"look_seconds": took[0], "cpu_a_minute": took[1] * 60 / every}))


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall time and processor time of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main(sys.argv[1])
