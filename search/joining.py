"""The command ``worker``: more workers for a study that exists, on any machine that reaches its database."""

from __future__ import annotations

from typing import TypeAlias

from search.interrupts import Interrupts
from search.options import DEFAULT_STORAGE
from search.placement import place
from search.repeating.common import Where, load_recorded
from search.session import Screen, Session, sweep
from search.tables import next_commands, summary_view
from search.workers import WorkerOrder, prepare_workers
from spaces.config import Configuration
from spaces.text import within
from studies.base import Study
from studies.folders import CHECKPOINTS, check_folder
from studies.opening import open_existing, open_to_check
from studies.plan import PlanStudy
from studies.storage import open_storage
from studies.study import SearchStudy
from studies.summary import summarize

OurStudy: TypeAlias = SearchStudy | PlanStudy


def join(where: Where, name: str, timeout: float | None, screen: Screen, interrupts: Interrupts) -> int:
    """Work on a study until it is complete, ``timeout`` seconds have passed, or whoever began it or this
    command is told to stop; return the exit code.

    Raises:
        ValueError: if there is no such study, or its data are not here.
    """
    prepare_workers()
    from search.hardware import note_differences

    with within("--storage"):
        looked_at = open_to_check(where.storage_url)
    order = _order(where, open_existing(looked_at, name), screen, interrupts)
    with within("--storage"):
        storage = open_storage(where.storage_url, create=False, write=True)
    study = open_existing(storage, name)
    note_differences(study, order.placement.devices[0], screen)
    closed, total = study.slots().closed(), study.total()
    screen.say(f"study {name!r}: {closed} of {total or 'unlimited'} trials closed; {order.placement.text()}")
    if study.is_complete():
        screen.say("nothing left to do")
        sweep(study, where.storage_url)
        return 0
    session = Session(study, order, screen, interrupts, timeout, joined=True)
    code = session.run()
    if isinstance(study, SearchStudy):
        summary = summarize(study)
        screen.finish(summary_view(summary), next_commands(summary, where.storage_url, DEFAULT_STORAGE))
    session.say_if_incomplete(code)
    return code


def _order(
    where: Where, study: SearchStudy | PlanStudy, screen: Screen, interrupts: Interrupts
) -> WorkerOrder:
    """What the workers do, after a look at the data: they must be those of the study. Writes nothing."""
    from search.prepare import shape_of

    check_folder(where.storage_url, CHECKPOINTS)
    request, data = load_recorded(where, study.data, screen, interrupts)
    interrupts.check()
    placement = place(where.resources, _typical(study), shape_of(data)).for_slots(_owed(study))
    method = (study.record.sampler, study.pruner) if isinstance(study, SearchStudy) else ("random", "none")
    return WorkerOrder(where.storage_url, study.name, request, placement, *method)


def _typical(study: OurStudy) -> Configuration:
    """A configuration like those that are trained."""
    if isinstance(study, SearchStudy):
        return study.space.base
    return Configuration.read(study.entries()[0].configuration, "the first entry")


def _owed(study: Study) -> int | None:
    total = study.total()
    return None if total is None else total - study.slots().closed()
