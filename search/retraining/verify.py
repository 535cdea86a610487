"""The command ``verify``: a recorded training again, to the last bit of its validation accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from search.hardware import device_name, versions
from search.interrupts import Interrupts
from search.retraining.exported import device_for, exported_split, load_exported, request_of
from search.retraining.screen import RetrainScreen, epoch_line
from search.training.engine import fit
from search.training.reports import EpochReport, Result
from search.training.resident import make_resident
from studies.export import ExportedConfiguration, ExportedRun, read_export
from studies.text import duration


@dataclass(frozen=True)
class VerifyRequest:
    """What a user asks for with ``cifar-search verify``."""

    file: Path
    run: int = 1
    """Which of the recorded runs, from 1."""
    dataset: str | None = None
    data_dir: Path | None = None
    device: str = "auto"


def verify(request: VerifyRequest, screen: RetrainScreen, interrupts: Interrupts) -> int:
    """Train again and compare; return the exit code: 1 only for a difference that nothing explains.

    Raises:
        ValueError: for whatever a user can get wrong, other data, or settings that were edited.
    """
    interrupts.raise_from_now_on()
    torch.set_num_threads(1)
    export = read_export(request.file)
    run = _chosen(export, request)
    device = device_for(request.device, run)
    data = load_exported(request_of(export, request.dataset, request.data_dir), export, screen.decoding)
    resident = make_resident(data, exported_split(run, data), device)
    epochs = export.settings.training.epochs
    about = f", about {duration(run.seconds)} by the recorded run" if run.seconds else ""
    screen.say(
        f"1 training to do: run {request.run} of {len(export.runs)} (trial {run.trial}), seed {run.seed}, "
        f"{epochs} epochs on {run.split.train_images} images on {device_name(device)}{about}"
    )

    def on_epoch(report: EpochReport) -> bool:
        interrupts.check()
        screen.say(epoch_line(report, epochs, validated=True))
        return report.diverged

    _, result = fit(export.settings, resident, device, run.seed, on_epoch)
    return _compare(run, result, device, screen)


def _chosen(export: ExportedConfiguration, request: VerifyRequest) -> ExportedRun:
    if export.is_edited:
        raise ValueError(
            f"{request.file}: its configuration is not the one that its runs trained (edited by hand, or of "
            "another version of cifar-search), so that there is nothing to verify against; retrain trains it"
        )
    if request.run > len(export.runs):
        raise ValueError(f"--run: the file has {len(export.runs)} run(s), but got {request.run}")
    return export.runs[request.run - 1]


def _compare(run: ExportedRun, result: Result, device: torch.device, screen: RetrainScreen) -> int:
    screen.say(f"validation accuracy recorded: {run.accuracy!r} (epoch {run.epoch})")
    screen.say(f"validation accuracy now:      {result.value!r} (epoch {result.epoch})")
    others = differences(run, device_name(device), versions())
    if (result.value, result.epoch) == (run.accuracy, run.epoch):
        screen.say(
            "verified: the same to the last bit" + (f", although {'; '.join(others)}" if others else "")
        )
        return 0
    images = round(abs(result.value - run.accuracy) * run.split.val_images)
    points = 100 * (result.value - run.accuracy)
    screen.say(f"not the same: {points:+.4f} points, {images} of {run.split.val_images} validation images")
    if others:
        screen.say(f"which need not be the same, since {'; '.join(others)}")
        return 0
    screen.say("although device and versions are the same (processors of one kind can still differ)")
    return 1


def differences(run: ExportedRun, device: str, here: dict[str, str]) -> list[str]:
    """What is not as it was when the run was recorded, for people."""
    found = [f"the device is {device} and was {run.device or 'not recorded'}"] if device != run.device else []
    for name in sorted({*here, *run.versions}):
        if here.get(name) != run.versions.get(name):
            found.append(
                f"{name} is {here.get(name, 'absent')} and was {run.versions.get(name, 'not recorded')}"
            )
    return found
