"""The command ``confirm``: the best configurations of a search, on fresh seeds and splits."""

from __future__ import annotations

from search.interrupts import Interrupts
from search.repeating.common import (
    Where,
    check_data,
    finish,
    open_plan_of,
    open_search,
    owe,
    start_of,
    train,
)
from search.repeating.tables import finalists_view
from search.session import Screen
from search.workers import prepare_workers
from spaces.text import within
from studies.finalists import choose_per_level, choose_top, confirm_name, finalists_in, remember_choices
from studies.plan import PlanStudy
from studies.study import SearchStudy


def confirm(
    where: Where,
    name: str,
    choice: tuple[int, str | None],
    repeats: tuple[int, int | None],
    screen: Screen,
    interrupts: Interrupts,
) -> int:
    """Repeat a search's best configurations; return the exit code.

    Args:
        where: storage, data and device.
        name: of the search.
        choice: how many of the best, or the parameter whose levels' best are wanted.
        repeats: seeds, and parts of a cross-validation (None: repeated hold-out).
        screen: where it shows itself.
        interrupts: of the command.

    Raises:
        ValueError: for whatever a user can get wrong, before anything is made.
    """
    prepare_workers()
    study = open_search(where, name)
    (top, parameter), (seeds, folds) = choice, repeats
    with within("--per-level" if parameter else "--top"):
        choices = choose_top(study, top) if parameter is None else choose_per_level(study, parameter)
    if len(choices) < top and parameter is None:
        screen.say(f"note: only {len(choices)} configuration(s) have completed")
    start = start_of(study)
    request = check_data(where, start, folds, screen, interrupts)
    plan = open_plan_of(where, "confirm", confirm_name(name, folds), start, folds)
    owe(plan, [each.planned() for each in choices], seeds * (folds or 1), screen)
    remember_choices(plan, choices, parameter)
    seconds = {each.entry.fingerprint: each.entry.seconds for each in choices}
    code = train(where, request, plan, seconds, screen, interrupts)
    _finish_confirm(where, plan, study, parameter, screen)
    return code


def _finish_confirm(
    where: Where, plan: PlanStudy, study: SearchStudy, parameter: str | None, screen: Screen
) -> None:
    found = finalists_in(plan, study, parameter)
    following = (
        ["ablate", study.name, "--seeds", "3"],
        ["export", study.name, "--confirmed", "-o", "best.yaml"],
    )
    finish(where, screen, finalists_view(found) if found else None, following)
