"""What every benchmark shares: the machine and versions it ran on, its JSON file, its tables."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

HERE = Path(__file__).parent
README = HERE / "README.md"
RESULTS = HERE / "results"
WIDTH = 120


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds of a benchmark."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int, unit: str = "") -> str:
        """The median, and between which values it lies, if there are several."""
        median = f"{self.median:.{digits}f}{unit}"
        if self.least == self.most:
            return median
        return f"{median} ({self.least:.{digits}f} to {self.most:.{digits}f})"


@dataclass(frozen=True)
class Table:
    """A table for the terminal and for the README alike."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: Sequence[str] = ()
    """Sentences below it."""

    def show(self) -> None:
        """Print it."""
        table = RichTable(*self.columns, title=self.title, title_justify="left")
        for row in self.rows:
            table.add_row(*row)
        console = Console(width=WIDTH)
        console.print(table)
        for note in self.notes:
            console.print(note, markup=False)

    def markdown(self) -> str:
        """As GitHub's Markdown."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        text = "\n".join([f"{self.title}\n", *(f"| {' | '.join(line)} |" for line in lines)])
        return "\n\n".join([text, *self.notes])


def store(name: str, output: Path | None, settings: dict[str, Any], figures: dict[str, Any]) -> Path:
    """Write a benchmark's figures with all that they depend on; return the file."""
    path = output or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "hardware": hardware(),
        "versions": versions(),
        "settings": settings,
        **figures,
    }
    _write_whole(path, json.dumps(content, indent=2, default=asdict) + "\n")
    return path


def _write_whole(path: Path, text: str) -> None:
    """So that a process killed meanwhile, or a full disk, leaves the file as it was."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def publish(name: str, tables: Sequence[Table], path: Path, picture: Path | None = None) -> None:
    """Put the tables, and a picture stored beside them, between this benchmark's marks in the README, unless
    they were stored elsewhere."""
    if path.parent.resolve() != RESULTS.resolve():
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    begin, end = f"<!-- {name}: written by the script -->", f"<!-- end of {name} -->"
    before, _, rest = README.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    shown = [f"![{name}](results/{picture.name})"] if picture and picture.exists() else []
    text = "\n\n".join([_provenance(stored, path.name), *shown, *(table.markdown() for table in tables)])
    README.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def _provenance(stored: dict[str, Any], file: str) -> str:
    machine, commit = stored["hardware"], stored["commit"]
    packages = ", ".join(f"{name} {number}" for name, number in stored["versions"].items())
    return (
        f"`results/{file}`: {stored['date'][:10]}, commit {commit['hash'][:10]}"
        f"{' with changes' if commit['changed'] else ''}; {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, GPU: {machine['gpu'] or 'none'}; {packages}; "
        f"load before the start: {stored['settings']['load_before']}."
    )


def hardware() -> dict[str, Any]:
    """The machine, in words."""
    import torch

    return {
        "cpu": _proc("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": usable_cores(),
        "memory_gib": round(int(_proc("/proc/meminfo", "MemTotal").split()[0]) / 2**20),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def versions() -> dict[str, str]:
    """The versions that can change a figure."""
    packages = ("torch", "torchvision", "optuna", "cifar-search")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def load() -> list[float]:
    """How many processes wanted the cores in the last 1, 5 and 15 minutes: figures taken beside others are
    to be read with care."""
    return [round(average, 2) for average in os.getloadavg()]


def _proc(path: str, field: str) -> str:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _commit() -> dict[str, Any]:
    """The checkout that ran: its commit, and whether its Python files differ from it."""

    def git(*arguments: str) -> str:
        ran = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
        return ran.stdout.strip()

    changed = git("status", "--porcelain", "--", ":/search", ":/studies", ":/spaces")
    return {"hash": git("rev-parse", "HEAD"), "changed": bool(changed)}
