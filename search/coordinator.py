"""The command ``run``: from its settings to a finished, interrupted or continued study."""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from search.cluster.request import RayRequest
from search.crews import Crews, find_crews
from search.data.request import DataRequest
from search.interrupts import Interrupts
from search.options import DEFAULT_STORAGE
from search.output import agree
from search.placement import ANYTHING, Resources
from search.session import Screen, Session, sweep
from search.tables import command_line, next_commands, summary_view
from search.workers import WorkerOrder
from spaces.space import Space
from spaces.text import within
from studies.folders import CHECKPOINTS, check_folder
from studies.methods import check_pruner, check_sampler, resolve_pruner, resolve_sampler
from studies.record import StudyRecord
from studies.storage import open_storage, probe
from studies.study import SearchStudy, check_continuation, check_name, open_study
from studies.summary import summarize


@dataclass(frozen=True)
class SearchRequest:
    """What a user asks for with ``cifar-search run``."""

    space: Space
    data: DataRequest
    storage_url: str
    study: str | None = None
    trials: int | None = None
    """The study's total; None: 50, or the whole grid, or as many as fit ``timeout``."""
    yes: bool = False
    """Whether the total of a study that exists may be lowered without a question."""
    timeout: float | None = None
    """Seconds of searching."""
    epochs: int | None = None
    val_size: float | int | None = None
    train_size: int | None = None
    sampler: str = "auto"
    pruner: str = "auto"
    seed: int = 0
    resources: Resources = ANYTHING
    ray: RayRequest | None = None
    """None: the workers are processes of this machine."""
    precision: str = "auto"
    repeat: int = 1


def run_search(request: SearchRequest, screen: Screen, interrupts: Interrupts) -> int:
    """Search until the study's total, its time or Ctrl-C; return the exit code.

    Raises:
        ValueError: for whatever a user can get wrong, before anything is made or changed.
    """
    with within("--sampler"):
        check_sampler(request.sampler)
    with within("--pruner"):
        check_pruner(request.pruner)
    if request.study is not None:
        with within("--study"):
            check_name(request.study)
    with within("--storage"):
        exists = probe(request.storage_url)
    check_folder(request.storage_url, CHECKPOINTS)
    with find_crews(request.resources, request.ray, request.storage_url, interrupts) as crews:
        return _search(request, crews, screen, interrupts, exists)


def _search(
    request: SearchRequest, crews: Crews, screen: Screen, interrupts: Interrupts, exists: bool
) -> int:
    order, study = _prepare(request, crews, screen, interrupts, exists)
    closed, total = study.slots().closed(), study.total()
    if total is not None and closed >= total:
        screen.say(f"study {study.name!r} has closed {closed} of {total} trials: nothing left to do")
        sweep(study, request.storage_url)
        _finish(study, request, screen)
        return 0
    if not order.placement.workers:
        screen.say("nobody works on it yet; to join it:")
        screen.say(f"  {command_line(['worker', study.name], request.storage_url, DEFAULT_STORAGE)}")
        return 0
    start = partial(crews.start, study=study, screen=screen)
    session = Session(study, order, screen, interrupts, request.timeout, start=start)
    code = session.run()
    _finish(study, request, screen)
    session.say_if_incomplete(code)
    return code


def _finish(study: SearchStudy, request: SearchRequest, screen: Screen) -> None:
    summary = summarize(study)
    screen.finish(summary_view(summary), next_commands(summary, request.storage_url, DEFAULT_STORAGE))


def _prepare(
    request: SearchRequest, crews: Crews, screen: Screen, interrupts: Interrupts, exists: bool
) -> tuple[WorkerOrder, SearchStudy]:
    """Load, check and announce everything, then create or continue the study."""
    from search.data.sources import load
    from search.data.split import make_split
    from search.hardware import note_differences
    from search.prepare import (
        adapt,
        check_fit,
        data_record,
        file_hashes,
        resolve_precision,
        shape_of,
        split_record,
    )

    interrupts.raise_from_now_on()
    device = crews.device()
    data = load(request.data, screen.decoding)
    split = make_split(
        data.labels_N, data.n_train, request.val_size, request.train_size, request.seed, data.classes
    )
    precision = resolve_precision(request.precision, device)
    adapted = adapt(request.space, data, request.epochs, precision)
    check_fit(adapted.space.base, data, split)
    placement = crews.place(adapted.space.base, shape_of(data))
    timed = request.timeout is not None and request.trials is None
    record = StudyRecord(
        space_name=request.space.name,
        space=adapted.space.to_yaml(),
        space_fingerprint=request.space.fingerprint(),
        data=data_record(data, request.data),
        split=split_record(split),
        epochs=adapted.space.base.training.epochs,
        precision=precision,
        seed=request.seed,
        sampler=request.sampler,
        pruner=resolve_pruner(request.pruner, timed, request.space.pruning_warmup),
        repeat=request.repeat,
        mark=uuid.uuid4().hex,
        files=file_hashes(adapted.space),
        changes=adapted.changes,
    )
    total, unsaid = _total(request, adapted.space), request.trials is None and request.timeout is None
    name = request.study or f"{request.space.name}-{data.name}"
    if exists:
        with closing(open_storage(request.storage_url, create=False)) as looked_at:
            there = check_continuation(looked_at, name, record)
            if there is not None and not unsaid:
                _agree_to_lower(there, total, request.yes)
    interrupts.check()
    storage = open_storage(request.storage_url, create=True)
    study = open_study(storage, name, record, total, keep_total=unsaid)
    total = study.total()
    method = _method(request, study, screen)
    order = WorkerOrder(request.storage_url, name, request.data, placement.for_slots(total), *method)
    _announce(study, order, screen)
    for note in (*data.notes, *([data.test_fault] if data.test_fault else [])):
        screen.say(f"note: {note}")
    if crews.here:
        note_differences(study, placement.devices[0], screen)
    return order, study


def _agree_to_lower(study: SearchStudy, total: int | None, yes: bool) -> None:
    """Ask before a study owes fewer trials than it did, which also ends the work of others on it."""
    if not study.would_be_lowered(total):
        return
    owed, closed = study.total() or "any number of", study.slots().closed()
    with within("--trials"):
        agree(f"study {study.name!r} owes {owed} trials and has closed {closed}: lower it to {total}?", yes)


def _total(request: SearchRequest, space: Space) -> int | None:
    with within("--sampler grid"):
        points = len(space.grid()) if request.sampler == "grid" else None
    if request.trials is not None:
        return request.trials
    if points is not None:
        return points * request.repeat
    return None if request.timeout is not None else 50


def _method(request: SearchRequest, study: SearchStudy, screen: Screen) -> tuple[str, str]:
    """The sampler and pruner of this session: as asked for, else the study's own."""
    for kind, asked, kept in (
        ("sampler", request.sampler, study.record.sampler),
        ("pruner", request.pruner, study.record.pruner),
    ):
        if asked not in ("auto", kept):
            notice = f"continued with the {kind} {asked} after {kept}"
            study.add_notice(notice)
            screen.say(f"note: {notice}")
    sampler = study.record.sampler if request.sampler == "auto" else request.sampler
    return sampler, study.record.pruner if request.pruner == "auto" else request.pruner


def _announce(study: SearchStudy, order: WorkerOrder, screen: Screen) -> None:
    record, total, closed = study.record, study.total(), study.slots().closed()
    sampler = resolve_sampler(order.sampler, bool(study.space.levels), order.placement.parallel)
    screen.say(f"question: {study.space.question}")
    screen.say(
        f"study {study.name!r}: {closed} of {total or 'unlimited'} trials closed; "
        f"{record.data.name}: {record.split.train_images} images to train, {record.split.val_images} to "
        f"validate; {record.epochs} epochs; {order.placement.text()}; "
        f"sampler {sampler}, pruner {order.pruner}, seed {record.seed}"
    )
    for note in (*record.changes, *([order.placement.rule] if order.placement.rule else [])):
        screen.say(f"note: {note}")
    levels = study.space.levels
    if levels and total is not None and total % len(levels):
        screen.say(f"note: {total} trials cannot be shared evenly by the {len(levels)} levels compared")
