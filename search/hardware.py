"""The device and the versions that can change a result, and a note where they are not those of before."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import search
import spaces
import studies
from studies.base import Study
from studies.record import outcome_of

if TYPE_CHECKING:
    from search.session import Screen


def device_name(device: torch.device) -> str:
    """What people call the device: the GPU's name, or "CPU" and its architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"


def versions() -> dict[str, str]:
    """The versions that can change a result; that of this program ends in a digest of its code."""
    packages = {name: version(name) for name in ("torch", "torchvision", "optuna")}
    ours = f"{version('cifar-search')}+{_code()}"
    return {"python": platform.python_version(), **packages, "cifar-search": ours}


@functools.cache
def _code() -> str:
    """Eight hexadecimal digits that differ for every change of the program."""
    digest = hashlib.sha256()
    for package in (search, spaces, studies):
        folder = Path(next(iter(package.__path__)))
        for file in sorted(folder.rglob("*.py")):
            digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:8]


def note_differences(study: Study, device: str, screen: Screen) -> None:
    """Record and say where the study's trials so far ran on other hardware or versions than this command."""
    here = device_name(torch.device(device)), versions()
    outcomes = [outcome for trial in study.trials() if (outcome := outcome_of(trial)) and outcome.versions]
    if not outcomes or (outcomes[-1].device, outcomes[-1].versions) == here:
        return
    before = outcomes[-1].device, outcomes[-1].versions
    notice = f"continued on {_text(*here)} after {_text(*before)}"
    study.add_notice(notice)
    screen.say(f"note: {notice}")


def _text(device: str, packages: dict[str, str]) -> str:
    return f"{device} with {', '.join(f'{name} {number}' for name, number in packages.items())}"
