"""The command ``ablate``: what each setting of a winner is worth, on fresh seeds and splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.interrupts import Interrupts
from search.repeating.common import (
    Start,
    Where,
    check_data,
    finish,
    open_plan_of,
    open_search,
    owe,
    start_of,
    train,
)
from search.repeating.tables import ablation_view
from search.session import Screen
from search.workers import prepare_workers
from spaces.ablation import DEFAULT_TOGETHER, Together
from spaces.config import Configuration
from spaces.parameter import Parameter
from spaces.text import within
from studies.ablation import ablate_name, ablation_in, remember_variants, variants
from studies.export import read_export
from studies.finalists import choose_top, finalists_of
from studies.record import setup_of
from studies.storage import probe


@dataclass(frozen=True)
class Source:
    """A winner, the base that it is compared with, and where they come from."""

    start: Start
    base: Configuration
    winner: Configuration
    parameters: Sequence[Parameter]
    together: Together
    seconds: float | None
    """What a training of the winner took."""
    origin: str
    """Where the winner comes from, for people to read."""


def ablate(
    where: Where,
    name: str,
    settings: tuple[int, Together, Path | None],
    screen: Screen,
    interrupts: Interrupts,
) -> int:
    """Take a winner apart; return the exit code.

    Args:
        where: storage, data and device.
        name: a search, whose winner it is, or an exported configuration's file.
        settings: seeds, further groups that move together, and the folder for pictures of the features.
        screen: where it shows itself.
        interrupts: of the command.

    Raises:
        ValueError: for whatever a user can get wrong, before anything is made.
    """
    prepare_workers()
    from search.repeating.step_features import MODELS, check_writable, draw_features

    seeds, together, features = settings
    source = _of_file(where, Path(name)) if _is_file(name) else _of_study(where, name)
    groups = (*source.together, *together)
    made, refused = variants(source.base, source.winner, source.parameters, groups)
    models = features / MODELS if features else None
    if models:
        check_writable(models)
    request = check_data(where, source.start, None, screen, interrupts)
    plan = open_plan_of(where, "ablate", ablate_name(source.start.name), source.start)
    owe(plan, [variant.planned() for variant in made], seeds, screen)
    remember_variants(plan, made, refused, source.origin)
    screen.say(f"winner: {source.origin}")
    for reason in refused:
        screen.say(f"note: {reason}")
    seconds = {variant.configuration.fingerprint(): source.seconds for variant in made if source.seconds}
    code = train(where, request, plan, seconds, screen, interrupts, models)
    found = ablation_in(plan)
    report = [["report", source.start.name, "-o", "report.html"]] if source.start.parent else []
    finish(where, screen, ablation_view(found) if found else None, [*report, ["dashboard"]])
    if features and code == 0 and plan.is_complete():
        for path in draw_features(request, plan, made, features, where.resources.device, screen.say):
            screen.say(f"wrote {path}")
    return code


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _of_study(where: Where, name: str) -> Source:
    """The best confirmed finalist of a search, or else its best trial."""
    study = open_search(where, name)
    finalists = finalists_of(study.storage, name)
    if finalists:
        best = finalists.finalists[0]
        number, seconds = best.trials[0], best.seconds
        origin = f"trial {number}, the best of {len(finalists.finalists)} finalists confirmed"
    else:
        entry = choose_top(study, 1)[0].entry
        number, seconds = entry.trials[0], entry.seconds
        origin = f"trial {number}, the best of the search (no finalists have been confirmed)"
    (trial,) = study.whole_trials([number])
    setup = setup_of(trial)
    assert setup is not None, "a completed trial of this program has a setup"
    winner = Configuration.read(setup.configuration, f"trial {number}")
    space = study.space
    groups = DEFAULT_TOGETHER if space.together is None else space.together
    return Source(start_of(study), space.base, winner, space.parameters, groups, seconds, origin)


def _of_file(where: Where, path: Path) -> Source:
    """An exported configuration, and the base that it was exported with."""
    export = read_export(path)
    base = export.base_settings
    if base is None:
        raise ValueError(f"{path}: must have a base, the configuration to compare with")
    winner = export.settings
    run = export.runs[0]
    name = f"{path.stem}-{export.fingerprint[:8]}.yaml"
    start = Start(name, "", "", export.question, export.data, run.split.spec, winner.training.epochs)
    with within("--storage"):
        probe(where.storage_url)
    return Source(start, base, winner, (), DEFAULT_TOGETHER, run.seconds, f"the file {path.name}")
