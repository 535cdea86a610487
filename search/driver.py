"""The trials of one worker, side by side on its lanes, driven by one thread.

While a GPU works on the epochs that are queued, the thread does everything else: it reports, decides, draws
the next slot. On a CPU there is one lane, and queuing an epoch is training it.

Epochs are settled in the order in which a clock of their work says that they end, not in the order in which
the device happens to end them. So what the sampler and the pruner know at each decision, and with it the
whole search of one worker, is the same each time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from optuna.trial import TrialState

from search.objective import NOTHING, Kept, TrialRun
from search.prepare import StudyData
from search.training.lanes import Lane
from search.watchdog import Watchdog
from studies.base import Claim, Study
from studies.heartbeat import Heartbeat
from studies.live import LiveReports
from studies.record import Drawing, Outcome

POLL = 0.5
"""Seconds between two looks for a slot while other workers hold the last ones."""
SLICE = 200
"""Steps that are queued for one trial before the next one's turn. A stream takes about a thousand launches;
then the thread waits, and the other streams would run dry."""


@dataclass
class _Place:
    """A lane and the trial on it."""

    lane: Lane
    run: TrialRun | None = None
    claim: Claim | None = None
    launched: bool = False
    """Whether it has an epoch that is not settled."""
    ends: float = 0.0
    """By the clock of work, when that epoch is over."""


class Driver:
    """One worker's share in a study."""

    def __init__(
        self,
        study: Study,
        data: StudyData,
        lanes: list[Lane],
        worker: str,
        drawing: Drawing,
        kept: Kept = NOTHING,
        leader: str | None = None,
    ) -> None:
        """Get ready; ``worker`` is the process's name, ``leader`` that of the one that sees it end, ``kept``
        what trials keep in files."""
        self._study = study
        self._data = data
        self._places = [_Place(lane) for lane in lanes]
        self._worker = worker
        self._leader = leader
        self._drawing = drawing
        self._kept = kept
        self._reports = LiveReports(study)
        self._heartbeat = Heartbeat(study.storage)
        self._ahead: list[Claim] = []
        self._drawn: int | None = None
        """The attempt that is being drawn."""
        self._clock = 0.0
        self._acting: _Place | None = None
        """Whose trial did something last."""
        self._left_memory = False
        """Whether a lane is gone whose memory is still reserved."""
        self._watchdog = Watchdog(self._give_up)
        self._pace: float | None = None
        """Seconds for a unit of work: the most that an epoch took so far."""

    def drive(self, stopping: Callable[[], bool]) -> None:
        """Claim and train until the study is complete, or, at the end of an epoch, ``stopping()``."""
        while not stopping():
            self._fill()
            self._launch_epochs()
            self._queue_epochs()
            self._draw_ahead()
            if any(place.launched for place in self._places):
                self._settle_next()
            elif self._study.is_complete():
                break
            else:
                time.sleep(POLL)
        self._put_back()
        self._watchdog.close()
        self._heartbeat.close()

    def _fill(self) -> None:
        """Give every free place a slot, as long as there are any."""
        if self._left_memory:  # not before: who called held the lane that is gone
            torch.cuda.empty_cache()
            self._left_memory = False
        for place in self._places:
            if place.run is None and (claim := self._next_claim()):
                data = self._data.divided(claim.split)
                place.claim = claim
                place.run = TrialRun(self._study, claim, data, self._reports, place.lane, self._kept)

    def _next_claim(self) -> Claim | None:
        claim = self._ahead.pop(0) if self._ahead else self._claim()
        self._watch(claim)
        return claim

    def _claim(self) -> Claim | None:
        try:
            return self._study.claim(self._worker, self._drawing, self._watch_drawing, self._leader)
        finally:
            self._drawn = None

    def _watch_drawing(self, trial_id: int) -> None:
        self._drawn = trial_id
        self._watch()

    def _watch(self, new: Claim | None = None) -> None:
        """Give signs of life for what is held here."""
        held = [place.claim for place in self._places] + self._ahead + [new]
        drawn = [] if self._drawn is None else [self._drawn]
        self._heartbeat.watch(self._study.uids([claim.trial_id for claim in held if claim] + drawn))

    def _launch_epochs(self) -> None:
        for place in list(self._places):  # one that is crowded out leaves it
            if place.run and not place.launched:
                self._act(place, place.run.launch)
            if place.run and not place.launched:
                place.launched, place.ends = True, self._clock + place.run.work

    def _queue_epochs(self) -> None:
        """Queue slices in turn, until all epochs are queued, or the next to be settled is over already."""
        while waiting := [place for place in self._places if place.run and not place.run.is_queued]:
            # new ones first: what they load waits until the device has done what others have queued
            new = [place for place in waiting if place.run and place.run.is_new]
            for place in new or waiting:
                if self._next()[1].is_done:
                    return
                self._act(place, partial(self._queue_slice, place))

    @staticmethod
    def _queue_slice(place: _Place) -> bool:
        assert place.run is not None
        return place.run.queue(SLICE)

    def _next(self) -> tuple[_Place, TrialRun]:
        """The place whose epoch is settled next, and its trial."""
        launched = [(place, place.run) for place in self._places if place.run and place.launched]
        return min(launched, key=lambda pair: pair[0].ends)

    def _settle_next(self) -> None:
        place, run = self._next()
        self._clock, place.launched = place.ends, False
        self._act(place, run.settle)
        if place.lane.device.type == "cpu":  # else once the next epoch is queued
            self._reports.write_if_due()

    def _act(self, place: _Place, act: Callable[[], bool]) -> None:
        """Do something with a trial; where that ended it, its place is free."""
        assert place.run is not None
        place.run.crowded = sum(other.run is not None for other in self._places) > 1
        self._acting = place
        place.run.watching = partial(self._watching, place.run)
        going_on = act()
        self._pace = max(filter(None, (self._pace, place.run.pace)), default=None)
        if going_on:
            return
        ended, place.run, place.claim, place.launched = place.run.ended, None, None, False
        self._watch()
        if ended == "crowded out":
            self._places.remove(place)
            self._acting, self._left_memory = None, True

    def _watching(self, run: TrialRun) -> AbstractContextManager[None]:
        """Watch over an epoch of a run, which has been built by now, so that its work is known."""
        return self._watchdog.watching(None if self._pace is None else self._pace * run.work)

    def _give_up(self, why: str) -> None:
        """Called beside a thread that hangs: record its trial, and end the process."""
        claim = self._acting.claim if self._acting else None
        try:
            if claim:
                outcome = Outcome(reason="error", message=why)
                self._study.close(claim.trial_id, TrialState.FAIL, outcome)
        finally:
            os._exit(1)

    def _draw_ahead(self) -> None:
        """Draw the slots that are wanted next while the device works."""
        self._reports.write_if_due()
        if len(self._ahead) < self._drawing.ahead and (claim := self._claim()):
            self._ahead.append(claim)
            self._watch()

    def _put_back(self) -> None:
        """Open the slots of what has not ended."""
        for place in self._places:
            if place.run:
                place.run.interrupt()
        for claim in self._ahead:
            self._study.put_back(claim.trial_id)
