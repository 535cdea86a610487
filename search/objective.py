"""The only bridge between a study and training: a claimed slot, trained epoch by epoch and reported."""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from optuna.trial import TrialState
from safetensors import SafetensorError

from search.checkpoints import Checkpoints
from search.hardware import device_name, versions
from search.training.engine import Run, peak_memory
from search.training.features import network_cost
from search.training.lanes import Lane, make_lane
from search.training.reports import EpochReport, last_phase
from search.training.resident import ResidentData
from search.training.shortage import is_shortage, may_be_shortage
from search.weights import save_weights
from spaces.text import digest
from studies.artifacts import ArtifactStore, attach_text
from studies.base import Claim, Study
from studies.live import LiveReports
from studies.record import History, Outcome, Reason
from studies.storage import StorageError


@dataclass(frozen=True)
class Kept:
    """What a trial keeps in files."""

    weights: Path | None = None
    """Folder for the weights of the trials that are to be kept; None: none is."""
    checkpoints: Checkpoints | None = None
    artifacts: ArtifactStore | None = None


NOTHING = Kept()
ALL = sys.maxsize
"""As many steps as an epoch has."""


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
        kept: Kept = NOTHING,
    ) -> None:
        """Take what is needed; nothing is built yet.

        Args:
            study: that the slot belongs to.
            claim: the slot.
            data: what it trains on.
            reports: those of this process; None: its own.
            lane: where it computes; None: one of its own.
            kept: what is kept in files.
        """
        self.crowded = False
        """Whether other trials share the device's memory: running out of it is then not this one's fault."""
        self.watching: Callable[[], AbstractContextManager[None]] = nullcontext
        """Opened while the device works on an epoch or is waited for, and not while the database is."""
        self.ended: Reason | None = None
        """Why it is over; None before."""
        self._study = study
        self._claim = claim
        self._data = data
        self._reports = reports or LiveReports(study)
        self._lane = lane or make_lane(data.device)
        self._kept = kept
        self._run: Run | None = None
        self._launched = False
        self._unsaved = ""
        self._saved = time.monotonic()
        self._reports.begin(claim.trial_id)

    @property
    def work(self) -> float:
        """What an epoch costs: multiplications and additions, roughly."""
        if self._run is None:
            return 0.0
        data = self._data
        return self._size.multiply_adds * (3.0 * len(data.train_indices) + len(data.val_indices))

    @property
    def pace(self) -> float | None:
        """Seconds that its last epoch took for a unit of work; None before the first."""
        if self._run is None or not self._run.history or not self.work:
            return None
        return self._run.history[-1].seconds / self.work

    @property
    def is_new(self) -> bool:
        """Whether none of its steps has been queued."""
        return self._run is None or self._run.is_new

    @property
    def is_queued(self) -> bool:
        """Whether nothing of the epoch launched is left to be queued."""
        return not self._launched or self._run is None or self._run.is_queued

    @property
    def is_done(self) -> bool:
        """Whether the epoch launched is over, so that settling it does not wait."""
        return not self._launched or self._run is None or self._run.is_done

    def advance(self) -> bool:
        """Train one epoch, report it, and decide; false once the trial is over and recorded."""
        return self.launch() and self._guarded(self._queue_rest) and self.settle()

    def launch(self) -> bool:
        """Begin an epoch, of a trial that is built now if this is its first; false once it is over."""
        return self._guarded(self._launch)

    def queue(self, steps: int) -> bool:
        """Queue so many steps more of the epoch, or the last ones and the validation; false once the trial is
        over."""
        return self._guarded(lambda: self._queue(steps))

    def settle(self) -> bool:
        """Wait for the epoch queued, report it, and decide; false once the trial is over."""
        return self._guarded(self._settle)

    def _guarded(self, act: Callable[[], None]) -> bool:
        problem: tuple[Reason, str] | None = None
        try:
            act()
        except StorageError:  # not the trial's fault: its slot is opened again by whoever claims next
            raise
        except Exception as error:  # a fault in one trial, whatever it is, must not end the study
            problem = self._problem(error)
        if problem:
            self._fail(*problem)
        return self.ended is None

    def _problem(self, error: Exception) -> tuple[Reason, str]:
        """Why a trial fails that ran into ``error``, which is being handled."""
        if self.crowded and may_be_shortage(error):
            return "crowded out", str(error)
        if is_shortage(error):
            return "out of memory", str(error)
        return "error", traceback.format_exc(limit=-8)

    def _launch(self) -> None:
        if self._run is None:
            self._start()
        if self._run is not None and not self._run.finished:  # it is, if it was ended before it was recorded
            with self.watching():
                self._run.start_epoch()
            self._launched = True

    def _queue(self, steps: int) -> None:
        if self._run is not None and not self.is_queued:
            with self.watching():
                self._run.queue(steps)

    def _queue_rest(self) -> None:
        while not self.is_queued:
            self._queue(ALL)

    def _settle(self) -> None:
        assert self._run is not None
        report, trial_id = self._collect(self._run), self._claim.trial_id
        if self._reports.given_away(trial_id):
            self._abandon()
        elif report.diverged:
            self._close(TrialState.PRUNED, self._outcome("diverged", "the loss is no longer a finite number"))
        elif self._run.finished:
            self._complete(self._run)
        elif self._reports.should_prune(trial_id):
            self._close(TrialState.PRUNED, self._outcome("pruned"))
        elif self._kept.checkpoints and time.monotonic() - self._saved >= self._kept.checkpoints.every:
            self._save()

    def _collect(self, run: Run) -> EpochReport:
        """The report of the epoch that is launched, or else of the last one."""
        if self._launched:
            self._queue_rest()
            self._launched = False
            with self.watching():
                report = run.end_epoch()
            self._report(report)
        return run.history[-1]

    def _report(self, report: EpochReport) -> None:
        self._reports.report(self._claim.trial_id, report.epoch, report.val_accuracy)

    def _abandon(self) -> None:
        """Somebody took this worker for dead and gave the slot away: nothing is written any more."""
        self.ended, self._run = "lost", None
        self._reports.end(self._claim.trial_id)

    def _save(self) -> None:
        """Keep the state that the trial has now, unless it was given away meanwhile."""
        checkpoints, trial_id = self._kept.checkpoints, self._claim.trial_id
        if checkpoints is None or self._run is None or not self._run.history:
            return
        self._reports.write()
        if self._reports.given_away(trial_id):
            return
        try:
            checkpoints.save(self._claim.slot, self._training, self._run.state_dict())
        except (OSError, RuntimeError) as error:  # a full disk costs the checkpoint, and not the trial
            self._unsaved = f"no checkpoint could be written: {error}"
        self._saved = time.monotonic()

    @property
    def _training(self) -> str:
        """A hash of what decides the training, and of the program, whose versions keep other states."""
        claim = self._claim
        split, program = claim.split.model_dump(mode="json"), versions()["cifar-search"]
        return digest([claim.configuration.fingerprint(), claim.seed, split, self._data.hash, program])

    def _start(self) -> None:
        """Build the run; if the configuration does not fit the data, that closes the slot."""
        if self._data.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._data.device)
        claim, data = self._claim, self._data
        try:
            self._size = network_cost(claim.configuration, data.shape)
            self._run = self._built()
        except ValueError as error:
            self._fail("invalid", str(error))
            return
        self._saved = time.monotonic()
        for report in self._run.history:
            self._report(report)

    def _built(self) -> Run:
        """The run, where its slot's last checkpoint left it, if there is one."""
        claim, data, checkpoints = self._claim, self._data, self._kept.checkpoints

        def built(prepare: bool) -> Run:
            return Run(claim.configuration, data, data.device, claim.seed, self._lane, prepare=prepare)

        state = checkpoints.load(claim.slot, self._training, data.device) if checkpoints else None
        if state is None:
            return built(prepare=True)
        run = built(prepare=False)
        try:
            run.load_state_dict(state)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):  # of another version
            return built(prepare=True)
        return run

    def _complete(self, run: Run) -> None:
        stopped = run.epoch < self._claim.configuration.training.epochs
        result = run.finish()
        outcome = self._outcome("stopped early" if stopped else "finished").model_copy(
            update={"epoch": result.epoch, "tta_accuracy": result.tta_accuracy}
        )
        if self._kept.weights and self._claim.keep:
            with suppress(OSError, SafetensorError):  # a full disk costs the model, and not the trial
                save_weights(run.network, self._kept.weights / f"{self._claim.keep}.safetensors")
        self._close(TrialState.COMPLETE, outcome, result.value, run.confusion())

    def interrupt(self) -> None:
        """End the attempt so that its slot is open again, to go on from the last epoch."""
        if self._guarded(self._wrap_up):
            self._close(TrialState.FAIL, self._outcome("interrupted"))

    def _wrap_up(self) -> None:
        if self._run is not None:
            self._collect(self._run)
            self._save()

    def _fail(self, reason: Reason, message: str) -> None:
        self._close(TrialState.FAIL, self._outcome(reason, message[-2000:]))
        if reason == "error" and self._kept.artifacts:
            with suppress(OSError):
                attach_text(self._study, self._kept.artifacts, self._claim.trial_id, "traceback.txt", message)
        if self._data.device.type == "cuda":
            _leave_if_broken(self._data.device)
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
        written = self._study.close(self._claim.trial_id, state, outcome, history, value, confusion)
        self._reports.end(self._claim.trial_id)
        if written and self._kept.checkpoints and self._closes_its_slot(state):
            self._kept.checkpoints.delete(self._claim.slot)

    def _closes_its_slot(self, state: TrialState) -> bool:
        """Whether there will be no further attempt, which would go on from the checkpoint."""
        return state != TrialState.FAIL or self._study.slots().is_closed(self._claim.slot)

    def _outcome(self, reason: Reason, message: str = "") -> Outcome:
        reports = self._run.history if self._run else []
        best = max(last_phase(reports), key=lambda report: report.val_accuracy, default=None)
        speeds = sorted(report.images_per_second for report in reports)
        return Outcome(
            reason=reason,
            message=message or self._unsaved,
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


def _leave_if_broken(device: torch.device) -> None:
    """End the process if nothing can be done on the GPU any more, as after an illegal access to memory; one
    that takes its place can."""
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        sys.exit(1)


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
