"""What became of a study, told from the rows of its database and by training again; not by the program."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import torch

from search.data.request import DataRequest
from search.data.sources import load
from search.prepare import split_of
from search.training.engine import fit
from search.training.resident import make_resident
from spaces.config import Configuration
from studies.record import SplitRecord

CLOSING = ("COMPLETE", "PRUNED")
UNCOUNTED = ("interrupted", "crowded out")
OF_WORKERS = ("killed", "lost")
FAILURES, DOUBTFUL = 3, 10
"""After which a slot is given up, as the README has it."""


@dataclass
class Attempt:
    """A row of ``trials``, with what belongs to it."""

    number: int
    state: str
    attributes: dict[str, Any] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    curve: dict[int, float] = field(default_factory=dict)

    @property
    def slot(self) -> int | None:
        return self.attributes.get("slot")

    @property
    def reason(self) -> str:
        reason: str = self.attributes.get("outcome", {}).get("reason", "none recorded")
        return reason

    @property
    def is_doubtful(self) -> bool:
        """Whether it is not known that what was trained had a part in its end."""
        begun = "setup" in self.attributes
        return self.reason == "lost" or (self.reason == "killed" and not begun)

    @property
    def reached(self) -> int:
        """Epochs reported, where it was ended with its worker."""
        return len(self.curve) if self.reason in OF_WORKERS else 0


def are_hopeless(failed: list[Attempt]) -> bool:
    """Whether a slot is given up after these attempts: three failures, or ten doubtful ones, of which those
    that ended with their workers count only since one of them last got further than all before."""
    furthest = 0
    errors: list[Attempt] = []
    ends: list[Attempt] = []
    for attempt in failed:
        if attempt.reached > furthest:
            furthest, ends = attempt.reached, []
        if attempt.reason not in UNCOUNTED:
            (ends if attempt.reason in OF_WORKERS else errors).append(attempt)
        doubtful = sum(end.is_doubtful for end in ends)
        if len(errors) + len(ends) - doubtful >= FAILURES or doubtful >= DOUBTFUL:
            return True
    return False


class Verdict:
    """The attempts of the one study in a database, and what is to be said of its slots."""

    def __init__(self, url: str, slots: int) -> None:
        """Read all rows."""
        self.slots = slots
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        written = "SELECT value_json FROM study_user_attributes WHERE `key` = 'cifar-search'"
        self.record = json.loads(self._rows(written)[0][0])
        self.attempts = self._attempts()
        self._by_slot: dict[int | None, list[Attempt]] = defaultdict(list)
        for attempt in self.attempts:
            self._by_slot[attempt.slot].append(attempt)

    def _rows(self, query: str) -> list[Any]:
        quote = self._engine.dialect.identifier_preparer.initial_quote
        with self._engine.connect() as connection:
            return list(connection.exec_driver_sql(query.replace("`", quote)))

    def _attempts(self) -> list[Attempt]:
        found = {
            trial_id: Attempt(number, state)
            for trial_id, number, state in self._rows("SELECT trial_id, number, state FROM trials ORDER BY 1")
        }
        for trial_id, key, value in self._rows(
            "SELECT trial_id, `key`, value_json FROM trial_user_attributes"
        ):
            found[trial_id].attributes[key] = json.loads(value)
        for trial_id, value in self._rows("SELECT trial_id, value FROM trial_values"):
            found[trial_id].values.append(value)
        for trial_id, step, value in self._rows(
            "SELECT trial_id, step, intermediate_value FROM trial_intermediate_values"
        ):
            found[trial_id].curve[step] = value
        return list(found.values())

    def closing(self, slot: int) -> list[Attempt]:
        """The attempts that gave the slot a result."""
        return [attempt for attempt in self._by_slot[slot] if attempt.state in CLOSING]

    def given_up(self) -> list[int]:
        """Slots that were closed without a result, after as many failures as a slot may have."""
        return [
            slot
            for slot in range(self.slots)
            if not self.closing(slot)
            and are_hopeless([attempt for attempt in self._by_slot[slot] if attempt.state == "FAIL"])
        ]

    def lost(self) -> list[int]:
        """Slots that are owed and not closed."""
        given_up = self.given_up()
        return [slot for slot in range(self.slots) if not self.closing(slot) and slot not in given_up]

    def twice(self) -> list[int]:
        """Slots with more than one result, or with attempts after the one that closed it."""
        return [
            slot
            for slot in range(self.slots)
            if self.closing(slot) and self.closing(slot) != self._by_slot[slot][-1:]
        ]

    def beyond(self) -> list[int | None]:
        """Slots that nobody asked for."""
        return [slot for slot in self._by_slot if slot not in range(self.slots)]

    def unfinished(self) -> list[int]:
        """Numbers of attempts that run or wait."""
        return [attempt.number for attempt in self.attempts if attempt.state in ("RUNNING", "WAITING")]

    def retried(self) -> list[int]:
        """Slots that took more than one attempt and have a result."""
        return [slot for slot in range(self.slots) if len(self._by_slot[slot]) > 1 and self.closing(slot)]

    def reasons(self) -> dict[str, int]:
        """How attempts ended, and how many each way."""
        return dict(Counter(attempt.reason for attempt in self.attempts))

    def differing(self, slots: list[int], data_folder: Path) -> list[int]:
        """Of these slots, those whose result is not what their training gives without any fault."""
        spec = SplitRecord.model_validate(self.record["split"])
        data = load(DataRequest("digits", data_folder))
        resident = make_resident(data, split_of(spec, data), torch.device("cpu"))
        torch.set_num_threads(1)

        def differs(attempt: Attempt) -> bool:
            setup = attempt.attributes["setup"]
            configuration = Configuration.read(setup["configuration"], "the trial")
            run, result = fit(configuration, resident, torch.device("cpu"), setup["seed"])
            curve = {report.epoch: report.val_accuracy for report in run.history}
            losses = [float(f"{report.val_loss:.5g}") for report in run.history]
            return (
                attempt.values != [result.value]
                or attempt.curve != curve
                or attempt.attributes["history"]["val_loss"] != losses
                or not all(map(math.isfinite, losses))
            )

        return [slot for slot in slots if differs(self.closing(slot)[0])]
