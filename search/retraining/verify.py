"""The command ``verify``: a recorded training again, the same to the last bit or within a tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from search.hardware import device_name, versions
from search.interrupts import Interrupts
from search.objective import history_of
from search.retraining.agreement import (
    Deviation,
    Figures,
    deviations,
    inequalities,
    must_be_exact,
    same_bits,
)
from search.retraining.exported import device_for, exported_split, load_exported, request_of
from search.retraining.screen import RetrainScreen, epoch_line
from search.training.engine import fit
from search.training.reports import EpochReport
from search.training.resident import make_resident
from studies.export import ExportedConfiguration, ExportedRun, read_export
from studies.text import duration

CPUS_DIFFER = "processors of one kind can still differ"
POOLING_DIFFERS = "training.deterministic does not cover some gradients of pooling"
RARELY_OUTSIDE = "fewer than 1 in 100 unchanged trainings lay outside where that was measured"


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

    trained, result = fit(export.settings, resident, device, run.seed, on_epoch)
    now = Figures(result.value, result.epoch, history_of(trained.history).train_loss)
    return _compare(export, run, now, device_name(device), screen)


def _chosen(export: ExportedConfiguration, request: VerifyRequest) -> ExportedRun:
    if export.is_edited:
        raise ValueError(
            f"{request.file}: its configuration is not the one that its runs trained (edited by hand, or of "
            "another version of cifar-search), so that there is nothing to verify against; retrain trains it"
        )
    if request.run > len(export.runs):
        raise ValueError(f"--run: the file has {len(export.runs)} run(s), but got {request.run}")
    return export.runs[request.run - 1]


def _compare(
    export: ExportedConfiguration, run: ExportedRun, now: Figures, device: str, screen: RetrainScreen
) -> int:
    recorded = Figures(run.accuracy, run.epoch, run.train_loss)
    screen.say(f"validation accuracy recorded: {recorded.accuracy!r} (epoch {recorded.epoch})")
    screen.say(f"validation accuracy now:      {now.accuracy!r} (epoch {now.epoch})")
    others = differences(run, device, versions())
    although = f", although {'; '.join(others)}" if others else ""
    if not recorded.train_loss:
        screen.say("no training losses are recorded in the file: the accuracy alone is compared")
    if same_bits(recorded, now):
        screen.say(f"verified: the same to the last bit{although}")
        return 0
    if must_be_exact(run.device, device, export.settings.training.deterministic):
        screen.say(f"not the same: {'; '.join(inequalities(recorded, now, run.split.val_images))}")
        on_cpu = device.startswith("CPU (")
        return _explain(others, CPUS_DIFFER if on_cpu else POOLING_DIFFERS, screen)
    split = run.split
    found = deviations(recorded, now, val_images=split.val_images, train_images=split.train_images)
    _say_tolerances(found, screen)
    outside = [str(deviation) for deviation in found if deviation.share > 1]
    if not export.settings.training.patience and len(now.train_loss) < len(recorded.train_loss):
        outside.append(f"{len(now.train_loss)} epochs were trained and {len(recorded.train_loss)} recorded")
    if outside:
        screen.say(f"not within the tolerance: {'; '.join(outside)}")
        return _explain(others, RARELY_OUTSIDE, screen)
    screen.say(f"verified: within the tolerance{although}")
    return 0


def _say_tolerances(found: Sequence[Deviation], screen: RetrainScreen) -> None:
    accuracy, losses = found[0], found[1:]
    screen.say(
        "compared within a tolerance, since bits are the same only on a CPU or with training.deterministic: "
        f"validation accuracy {100 * accuracy.tolerance:.2f} points (3 standard errors of a difference)"
    )
    if losses:
        furthest = max(losses, key=lambda deviation: deviation.share)
        screen.say(f"training loss: 1 % + 2.5 sqrt(loss / images) in each epoch; furthest away: {furthest}")


def _explain(others: list[str], hint: str, screen: RetrainScreen) -> int:
    """Say why it need not agree, or that nothing explains it; return the exit code."""
    if others:
        screen.say(f"which need not be the same, since {'; '.join(others)}")
        return 0
    screen.say(f"although device and versions are the same ({hint})")
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
