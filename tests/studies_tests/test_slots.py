"""Slots: which attempts close one, and which leave it open."""

from __future__ import annotations

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.record import OUTCOME, SETUP, SLOT
from studies.slots import ATTEMPTS, Slots

RUNNING, WAITING, FAIL = TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL
COMPLETE, PRUNED = TrialState.COMPLETE, TrialState.PRUNED


def attempt(
    slot: int | None, state: TrialState, reason: str | None = None, begun: bool = True, reached: int = 0
) -> FrozenTrial:
    attributes: dict[str, object] = {} if slot is None else {SLOT: slot}
    if begun:
        attributes[SETUP] = {
            "seed": 1,
            "repeat": 0,
            "fingerprint": "f",
            "sampler": "random",
            "pruner": "none",
        }
    if reason or state in (COMPLETE, PRUNED):
        reason = reason or "finished"
        attributes[OUTCOME] = {"reason": reason, "reached": reached}
    return create_trial(state=state, value=0.5 if state == COMPLETE else None, user_attrs=attributes)


def failures(slot: int, *reasons: str | None) -> list[FrozenTrial]:
    return [attempt(slot, FAIL, reason) for reason in reasons]


def deaths(*reached: int) -> list[FrozenTrial]:
    """Attempts of slot 0 whose workers were killed, and the epochs that each had come to."""
    return [attempt(0, FAIL, "killed", reached=epochs) for epochs in reached]


@pytest.mark.parametrize(
    ("attempts", "closed", "for_good"),
    [
        ([attempt(0, COMPLETE, "finished")], True, False),
        ([attempt(0, PRUNED, "diverged")], True, False),
        ([attempt(0, RUNNING)], False, False),
        ([attempt(0, WAITING)], False, False),
        (failures(0, "error", "error"), False, False),
        (failures(0, "error", "lost", "error"), False, False),
        (failures(0, "error", "killed", "error"), True, True),
        (failures(0, "killed", "lost", "killed", "killed"), True, True),
        (failures(0, "error", None, None), False, False),
        (failures(0, *[None] * 9), False, False),
        (failures(0, *[None] * 10), True, True),
        (failures(0, *["lost"] * 9), False, False),
        (failures(0, *["lost"] * 10), True, True),
        (deaths(0, 1, 2, 3, 4, 5), False, False),
        (deaths(1, 1, 2, 1), False, False),
        (deaths(1, 1, 2, 1, 0), True, True),
        ([*deaths(1, 1), *failures(0, "interrupted", "crowded out"), *deaths(0)], True, True),
        ([*failures(0, "error", "error"), *deaths(7)], True, True),
        ([*failures(0, *["lost"] * 9), *deaths(1), *failures(0, *["lost"] * 9)], False, False),
        ([attempt(0, FAIL, "killed", begun=False)] * 9, False, False),
        ([attempt(0, FAIL, "killed", begun=False)] * 10, True, True),
        ([attempt(0, FAIL, "lost", begun=False), *failures(0, "killed", "killed")], False, False),
        ([attempt(0, FAIL, "error", begun=False)] * 3, True, True),
        ([attempt(0, FAIL, "invalid", begun=False)], True, True),
        (failures(0, "out of memory"), True, True),
        (failures(0, "invalid"), True, True),
        (failures(0, *["interrupted"] * 5), False, False),
        (failures(0, "interrupted", "error", "interrupted", "error"), False, False),
        ([*failures(0, "error", "error"), attempt(0, COMPLETE, "finished")], True, False),
    ],
)
def test_what_closes_a_slot(attempts, closed, for_good):
    slots = Slots(attempts)
    assert slots.is_closed(0) is closed
    assert slots.failed_for_good(0) is for_good
    assert slots.closed() == closed
    assert slots.next_open() == (1 if closed or slots.is_running(0) else 0)


def test_three_attempts_are_the_limit():
    assert ATTEMPTS == 3
    assert not Slots(failures(0, *["error"] * 2)).is_closed(0)
    assert Slots(failures(0, *["error"] * 3)).is_closed(0)


def test_the_next_open_slot_is_the_lowest_that_nobody_works_on():
    trials = [
        attempt(0, COMPLETE, "finished"),
        attempt(1, RUNNING),
        attempt(2, FAIL, "interrupted"),
        attempt(3, WAITING),
        attempt(4, FAIL, "error"),
    ]
    assert Slots(trials).next_open() == 2
    assert Slots([*trials, attempt(2, RUNNING)]).next_open() == 3
    assert Slots([*trials, attempt(2, RUNNING), attempt(3, PRUNED)]).next_open() == 4
    assert Slots([]).next_open() == 0


def test_taken_counts_what_is_closed_or_running_but_not_what_waits():
    trials = [attempt(0, COMPLETE), attempt(1, RUNNING), attempt(2, WAITING), attempt(3, FAIL, "error")]
    assert Slots(trials).taken() == 2
    assert Slots(trials).closed() == 1


def test_trials_without_a_slot_are_none_of_ours():
    slots = Slots([attempt(None, COMPLETE), attempt(None, RUNNING)])
    assert (slots.closed(), slots.taken(), slots.next_open()) == (0, 0, 0)


def test_the_closing_trial_of_each_slot_in_the_order_of_slots():
    last = attempt(1, FAIL, "error")
    finished, pruned = attempt(2, COMPLETE, "finished"), attempt(0, PRUNED, "pruned")
    trials = [
        finished,
        *failures(1, "error", "killed"),
        last,
        attempt(0, FAIL, "lost"),
        pruned,
        attempt(3, RUNNING),
    ]
    closing = Slots(trials).closing_trials()
    assert [trial.user_attrs[SLOT] for trial in closing] == [0, 1, 2]
    assert closing[0] is pruned
    assert closing[1] is last
    assert closing[2] is finished
