"""The only bridge between a study and training: a claimed slot, trained epoch by epoch and reported."""

from __future__ import annotations

import math
import platform
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from optuna.trial import TrialState
from safetensors import SafetensorError

from search.training.engine import Run, peak_memory
from search.training.features import network_cost
from search.training.lanes import Lane, make_lane
from search.training.reports import EpochReport, last_phase
from search.training.resident import ResidentData
from search.weights import save_weights
from studies.base import Claim, Study
from studies.live import LiveReports
from studies.record import History, Outcome, Reason
from studies.storage import StorageError


class TrialRun:
    """One attempt of a slot: started, advanced by an epoch when told, and closed in the study.

    One thread drives several, each on its lane. Whatever goes wrong in a trial ends that trial alone.
    """

    def __init__(
        self,
        study: Study,
        claim: Claim,
        data: ResidentData,
        reports: LiveReports | None = None,
        lane: Lane | None = None,
        keep: Path | None = None,
    ) -> None:
        """Take what is needed; nothing is built yet.

        Args:
            study: that the slot belongs to.
            claim: the slot.
            data: what it trains on.
            reports: those of this process; None: its own.
            lane: where it computes; None: one of its own.
            keep: folder for the weights of a trial that is to be kept.
        """
        self.crowded = False
        """Whether other trials share the device's memory: running out of it is then not this one's fault."""
        self.ended: Reason | None = None
        """Why it is over; None before."""
        self._study = study
        self._claim = claim
        self._data = data
        self._reports = reports or LiveReports(study)
        self._lane = lane or make_lane(data.device)
        self._keep = keep
        self._run: Run | None = None
        self._reports.begin(claim.trial_id)

    @property
    def work(self) -> float:
        """What an epoch costs: multiplications and additions, roughly."""
        if self._run is None:
            return 0.0
        data = self._data
        return self._size.multiply_adds * (3.0 * len(data.train_indices) + len(data.val_indices))

    def advance(self) -> bool:
        """Train one epoch, report it, and decide; false once the trial is over and recorded."""
        return self.launch() and self.settle()

    def launch(self) -> bool:
        """Queue an epoch, of a trial that is built now if this is its first; false once it is over."""
        return self._guarded(self._launch)

    def settle(self) -> bool:
        """Wait for the epoch queued, report it, and decide; false once the trial is over."""
        return self._guarded(self._settle)

    def _guarded(self, act: Callable[[], None]) -> bool:
        problem: tuple[Reason, str] | None = None
        try:
            act()
        except (torch.OutOfMemoryError, MemoryError) as error:
            problem = "crowded out" if self.crowded else "out of memory", str(error)
        except StorageError:  # not the trial's fault: its slot is opened again by whoever claims next
            raise
        except Exception:  # a fault in one trial, whatever it is, must not end the study
            problem = "error", traceback.format_exc(limit=-8)
        if problem:
            self._fail(*problem)
        return self.ended is None

    def _launch(self) -> None:
        if self._run is None:
            self._start()
        if self._run is not None:
            self._run.begin_epoch()

    def _settle(self) -> None:
        assert self._run is not None
        report, trial_id = self._run.end_epoch(), self._claim.trial_id
        self._reports.report(trial_id, report.epoch, report.val_accuracy)
        if report.diverged:
            self._close(TrialState.PRUNED, self._outcome("diverged", "the loss is no longer a finite number"))
        elif self._run.finished:
            self._complete(self._run)
        elif self._reports.should_prune(trial_id):
            self._close(TrialState.PRUNED, self._outcome("pruned"))

    def _start(self) -> None:
        """Build the run; if the configuration does not fit the data, that closes the slot."""
        if self._data.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._data.device)
        claim, data = self._claim, self._data
        try:
            self._size = network_cost(claim.configuration, data.shape)
            self._run = Run(claim.configuration, data, data.device, claim.seed, self._lane)
        except ValueError as error:
            self._fail("invalid", str(error))

    def _complete(self, run: Run) -> None:
        stopped = run.epoch < self._claim.configuration.training.epochs
        result = run.finish()
        outcome = self._outcome("stopped early" if stopped else "finished").model_copy(
            update={"epoch": result.epoch, "tta_accuracy": result.tta_accuracy}
        )
        if self._keep and self._claim.keep:
            with suppress(OSError, SafetensorError):  # a full disk costs the model, and not the trial
                save_weights(run.network, self._keep / f"{self._claim.keep}.safetensors")
        self._close(TrialState.COMPLETE, outcome, result.value, run.confusion())

    def interrupt(self) -> None:
        """End the attempt so that its slot is open again."""
        self._lane.wait()
        self._close(TrialState.FAIL, self._outcome("interrupted"))

    def _fail(self, reason: Reason, message: str) -> None:
        self._close(TrialState.FAIL, self._outcome(reason, message[-2000:]))
        if self._data.device.type == "cuda":
            torch.cuda.empty_cache()

    def _close(
        self,
        state: TrialState,
        outcome: Outcome,
        value: float | None = None,
        confusion: list[list[int]] | None = None,
    ) -> None:
        history = history_of(self._run.history if self._run else [])
        self.ended, self._run = outcome.reason, None
        self._reports.write()
        self._study.close(self._claim.trial_id, state, outcome, history, value, confusion)
        self._reports.end(self._claim.trial_id)

    def _outcome(self, reason: Reason, message: str = "") -> Outcome:
        reports = self._run.history if self._run else []
        best = max(last_phase(reports), key=lambda report: report.val_accuracy, default=None)
        speeds = sorted(report.images_per_second for report in reports)
        return Outcome(
            reason=reason,
            message=message,
            epoch=len(reports),
            best_accuracy=best.val_accuracy if best else None,
            best_epoch=best.epoch if best else None,
            seconds=sum(report.seconds for report in reports),
            images_per_second=speeds[len(speeds) // 2] if speeds else None,
            peak_memory=peak_memory(self._data.device),
            device=device_name(self._data.device),
            eager=self._run.eager if self._run else "",
            versions=versions(),
            **(asdict(self._size) if reports else {}),
        )


def history_of(reports: list[EpochReport]) -> History:
    """The curves as they are stored: five significant digits, and no value where none is finite."""

    def column(value: Callable[[EpochReport], float | None]) -> tuple[float | None, ...]:
        return tuple(rounded(value(report)) for report in reports)

    noisy = any(report.memorized is not None for report in reports)
    points = [point for report in reports for point in report.steps]
    return History(
        train_loss=column(lambda report: report.train_loss),
        train_accuracy=column(lambda report: report.train_accuracy),
        val_loss=column(lambda report: report.val_loss),
        lr=column(lambda report: report.lr),
        seconds=column(lambda report: report.seconds),
        memorized=column(lambda report: report.memorized) if noisy else (),
        corrected=column(lambda report: report.corrected) if noisy else (),
        step=tuple(step for step, _, _ in points),
        step_loss=tuple(rounded(loss) for _, loss, _ in points),
        step_accuracy=tuple(rounded(accuracy) for _, _, accuracy in points),
    )


def rounded(number: float | None) -> float | None:
    """Five significant digits; None for what is no finite number."""
    return None if number is None or not math.isfinite(number) else float(f"{number:.5g}")


def device_name(device: torch.device) -> str:
    """What people call the device: the GPU's name, or "CPU" and its architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"


def versions() -> dict[str, str]:
    """The versions that can change a result."""
    packages = ("torch", "torchvision", "optuna", "cifar-search")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
