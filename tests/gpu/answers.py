"""What the probe found, as a person reads it: a table, the best number of trials side by side, counts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

WIDTH = 80
"""Columns of the table, at most."""
HEADING = f"{'case':32} {'s/epoch':>8} {'images/s':>9}  captured"
KINDS = ("with figures", "error", "skipped", "not captured")
"""Of answers. One that was not captured has figures too."""

Answer = dict[str, Any]


def read(path: Path) -> list[Answer]:
    """Every answer of a file; the last line of a probe that was killed may be cut off."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def wanted_eager(answer: Answer) -> bool:
    return bool(answer["name"].endswith(" eager"))


def kinds(answer: Answer) -> Iterable[str]:
    """Those of ``KINDS`` that it is."""
    failures = [kind for kind in ("error", "skipped") if kind in answer]
    missed = ["not captured"] if answer.get("eager") and not wanted_eager(answer) else []
    return failures or ["with figures", *missed]


def counts(answers: Iterable[Answer]) -> str:
    """How many there are of each kind."""
    found = Counter(kind for answer in answers for kind in kinds(answer))
    return ", ".join(f"{found[kind]} {kind}" for kind in KINDS)


def table(answers: Sequence[Answer]) -> list[str]:
    """Lines of at most ``WIDTH`` columns: seconds for an epoch of a trial, images a second of all trials side
    by side, whether the steps were captured. Cases that time no epochs have no figures here."""
    return [HEADING, *map(row, answers)]


def row(answer: Answer) -> str:
    speed = number(answer.get("images_per_second_all_lanes"), ",.0f")
    line = f"{answer['name']:32} {number(answer.get('per_trial_epoch'), '.3f'):>8} {speed:>9}  {word(answer)}"
    return " ".join(line.splitlines())[:WIDTH].rstrip()


def number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def word(answer: Answer) -> str:
    """Whether it was captured, or why not."""
    for kind in ("error", "skipped"):
        if kind in answer:
            return f"{kind}: {answer[kind]}"
    return str(answer.get("eager") or "yes")


def best(answers: Iterable[Answer]) -> str:
    """The command that goes on with the best number of trials side by side."""
    times: dict[str, float] = {}
    for answer in answers:
        found = re.fullmatch(r"vgg512(?: x(\d+))?", answer["name"])
        if found and "per_trial_epoch" in answer:
            times[found[1] or "1"] = answer["per_trial_epoch"]
    if not times:
        return "best: not known, no case of vgg512 has figures: python tests/gpu/measure.py auto"
    return f"best: python tests/gpu/measure.py {min(times, key=times.__getitem__)}"


def without_table(lines: Sequence[str]) -> Sequence[str]:
    """Of a probe's output, nothing if it came to its table, which is shown elsewhere; else its last words."""
    return [] if HEADING in lines else [line[: WIDTH - 1] for line in lines[-10:]]
