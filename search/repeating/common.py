"""Configurations trained again on fresh seeds and splits: what ``confirm`` and ``ablate`` share."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from search.data.request import DataRequest
from search.interrupts import Interrupts
from search.options import DEFAULT_STORAGE
from search.placement import ANYTHING, Placement, Resources, place
from search.session import Screen, Session
from search.tables import command_line
from search.workers import WorkerOrder
from spaces.config import Configuration
from spaces.text import within
from studies.folders import CHECKPOINTS, check_folder
from studies.opening import open_to_check
from studies.plan import PlannedEntry, PlanRecord, PlanStudy, open_plan
from studies.record import DataRecord, SplitSpec
from studies.storage import open_storage
from studies.study import SearchStudy
from studies.text import duration

if TYPE_CHECKING:
    from search.data.sources import ImageData


@dataclass(frozen=True)
class Where:
    """Where trainings are kept, what they read, and what they run on."""

    storage_url: str
    dataset: str | None = None
    """None: what the study says."""
    data_dir: Path | None = None
    resources: Resources = ANYTHING


@dataclass(frozen=True)
class Start:
    """What a configuration is trained again from."""

    name: str
    """Of the study; of a file, what it is called."""
    parent: str
    """The search in the same database; empty for a file."""
    parent_id: str
    question: str
    data: DataRecord
    split: SplitSpec
    epochs: int


def open_search(where: Where, name: str) -> SearchStudy:
    """The search of this name, to be read; what is refused leaves everything as it was.

    Raises:
        ValueError: if there is none.
    """
    from search.prepare import file_hashes

    with within("--storage"):
        storage = open_to_check(where.storage_url)
    study = SearchStudy(storage, name)
    recorded = study.record.files
    changed = [path for path, now in file_hashes(study.space).items() if recorded.get(path) != now]
    if changed:
        raise ValueError(f"{changed[0]}: has changed since the search read it")
    return study


def open_plan_of(where: Where, kind: str, name: str, start: Start, folds: int | None = None) -> PlanStudy:
    """The plan of this name, made where there is none; a file's, in a database that is made as well.

    Raises:
        ValueError: if it cannot be written, or is another plan.
    """
    with within("--storage"):
        storage = open_storage(where.storage_url, create=not start.parent, write=True)
    return open_plan(storage, name, plan_record(kind, start, folds))


def start_of(study: SearchStudy) -> Start:
    """A search as what its configurations are trained again from."""
    record, question = study.record, study.space.question
    return Start(study.name, study.name, record.mark, question, record.data, record.split.spec, record.epochs)


def finish(
    where: Where, screen: Screen, view: RenderableType | None, following: Sequence[Sequence[str]]
) -> None:
    """Show the results, if there are any yet, and the commands to go on with."""
    nothing = Text("not every configuration has been trained once yet: nothing to compare")
    commands = [command_line(words, where.storage_url, DEFAULT_STORAGE) for words in following]
    screen.finish(view or nothing, commands)


def plan_record(kind: str, start: Start, folds: int | None) -> PlanRecord:
    """The record of a plan."""
    return PlanRecord.model_validate(
        {
            "kind": kind,
            "parent": start.parent,
            "parent_id": start.parent_id,
            "question": start.question,
            "data": start.data,
            "split": start.split,
            "folds": folds,
            "epochs": start.epochs,
            "mark": uuid.uuid4().hex,
        }
    )


def load_recorded(
    where: Where, recorded: DataRecord, screen: Screen, interrupts: Interrupts
) -> tuple[DataRequest, ImageData]:
    """The images of a study, and what to ask for to get them.

    Raises:
        ValueError: if they are not there, or are not those recorded.
    """
    from search.data.sources import SOURCES, load
    from search.prepare import check_recorded

    if where.dataset in SOURCES and where.dataset != recorded.name:
        raise ValueError(
            f"--dataset: the study's images are those of {recorded.name}, but got {where.dataset}: leave the "
            "option out, or name a folder of the same images"
        )
    source = where.dataset or recorded.source
    if not source:
        raise ValueError("--dataset: must be given, since the study does not say where its images are")
    interrupts.raise_from_now_on()
    request = DataRequest(source, where.data_dir, recorded.image_size)
    data = load(request, screen.decoding)
    check_recorded(data, recorded, source)
    return request, data


def check_data(
    where: Where, start: Start, folds: int | None, screen: Screen, interrupts: Interrupts
) -> DataRequest:
    """Load what will be trained on, and try a fresh split of it.

    Raises:
        ValueError: if it is not there, is not what the study used, or cannot be divided so.
    """
    from search.prepare import resolve_device, split_of

    resolve_device(where.resources.device)
    check_folder(where.storage_url, CHECKPOINTS)
    request, data = load_recorded(where, start.data, screen, interrupts)
    fresh = start.split.model_copy(update={"pooled": True})
    if folds is not None:
        fresh = fresh.model_copy(update={"val_size": None, "fold": 0, "folds": folds})
    split_of(fresh, data)
    if start.split.val_size is None and data.n_train < len(data.labels_N):
        screen.say("note: the data set's own validation images are put together with the training images")
    interrupts.check()
    return request


def owe(plan: PlanStudy, wanted: Sequence[PlannedEntry], blocks: int, screen: Screen) -> None:
    """Plan what a command asks for, and say what an earlier one asked for and is dropped."""
    if dropped := plan.owe(wanted, blocks):
        screen.say(f"note: {dropped} training(s) that were planned before and have not begun are dropped")


def train(
    where: Where,
    request: DataRequest,
    plan: PlanStudy,
    seconds: Mapping[str, float],
    screen: Screen,
    interrupts: Interrupts,
    keep: Path | None = None,
) -> int:
    """Run what the plan owes; ``seconds`` is what a training of each entry is expected to take."""
    from search.training.models import Shape

    slots, cells, entries = plan.slots(), plan.cells(), plan.entries()
    owed = [entries[entry] for slot, (entry, _) in enumerate(cells) if not slots.is_closed(slot)]
    height, width, channels = plan.data.shape
    shape = Shape(channels, height, width, len(plan.data.classes))
    configuration = Configuration.read(entries[0].configuration, "the first entry")
    placement = place(where.resources, configuration, shape).for_slots(len(owed))
    screen.say(_announcement(plan, owed, len(cells), placement, seconds))
    if not owed:
        return 0
    order = WorkerOrder(where.storage_url, plan.name, request, placement, "random", "none", keep)
    session = Session(plan, order, screen, interrupts)
    code = session.run()
    session.say_if_incomplete(code)
    return code


def _announcement(
    plan: PlanStudy,
    owed: Sequence[PlannedEntry],
    total: int,
    placement: Placement,
    seconds: Mapping[str, float],
) -> str:
    blocks = len({block for _, block in plan.cells()})
    folds = plan.record.folds
    what = "splits of fresh seeds" if folds is None else f"folds (of {folds}-fold cross-validation)"
    known = [seconds[entry.fingerprint] for entry in owed if entry.fingerprint in seconds]
    usual = sum(known) / len(known) if known else None
    line = (
        f"{plan.name}: {total} trainings of {plan.epochs} epochs on {blocks} {what}, {total - len(owed)} of "
        f"them done; {placement.text()}"
    )
    if usual and owed:
        line += (
            f"; about {duration(usual * len(owed) / placement.parallel)}, by what such trainings took before"
        )
    return line
