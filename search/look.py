"""The commands that look and change nothing: data sets and studies."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from search.data.describe import describe
from search.data.images import ImageData, Images, Labels
from search.data.preview import COLUMNS, draw_grid, first_of_each
from search.data.request import DataRequest
from search.data.sources import load
from search.data.split import make_split
from search.output import make_console
from search.screen import make_screen
from spaces.domain import Value
from spaces.space import Space
from spaces.text import within
from studies.text import percent, settings, sparkline

if TYPE_CHECKING:
    from studies.plan import PlanStudy
    from studies.study import SearchStudy


PAGE = 100
"""Trials whose curves are shown at once."""


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))  # noqa: T201 (a script reads this)


def describe_data(
    request: DataRequest,
    split_settings: tuple[float | int | None, int | None, int],
    preview: Path | None,
    augment: str | None,
    as_json: bool,
) -> None:
    """Print what there is to know of a data set, and draw its first hundred images.

    Args:
        request: which data set.
        split_settings: validation size, training size and seed.
        preview: the PNG file to draw; None: none.
        augment: a space that augments the images drawn, each row by another configuration of it: those of its
            grid where it has at most ten, else configurations drawn at random.
        as_json: print JSON.
    """
    space = Space.load(augment) if augment else None
    screen = make_screen()
    data = load(request, screen.decoding)
    split = make_split(data.labels_N, data.n_train, *split_settings, classes=data.classes)
    description = describe(data, split)
    if as_json:
        _print_json(description)
    else:
        _print_description(description)
    if preview is not None:
        shown_N = first_of_each(data.labels_N)
        images_NHWC = data.images_NHWC[shown_N]
        if space is not None:
            images_NHWC, rows = _augmented(data, shown_N, space)
            if not as_json:
                _print_rows(rows)
        draw_grid(images_NHWC, data.labels_N[shown_N], data.classes, preview)


def _augmented(data: ImageData, shown_N: Labels, space: Space) -> tuple[Images, list[dict[str, Value]]]:
    """The chosen images augmented, each row by a configuration of its own; and those, as parameters."""
    import torch

    from search.prepare import adapt
    from search.training.augmentation.pipeline import preview_batch

    torch.manual_seed(0)
    space = adapt(space, data, None, "fp32").space
    images_NHWC = torch.from_numpy(data.images_NHWC)
    rows_of_indices = torch.split(torch.from_numpy(shown_N), COLUMNS)
    rows = _configurations(space, len(rows_of_indices))
    augmented = [
        preview_batch(space.configure(values).augmentation, images_NHWC, indices_B)
        for values, indices_B in zip(rows, rows_of_indices, strict=True)
    ]
    return (torch.cat(augmented) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy(), rows


def _configurations(space: Space, count: int) -> list[dict[str, Value]]:
    """The points of the space's grid in turn where there are at most ``count``, else random draws."""
    import optuna

    try:
        points = space.grid()
    except ValueError:  # something varies continuously
        points = []
    if 0 < len(points) <= count:
        return [points[row % len(points)] for row in range(count)]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    draws = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(draws.ask()) for _ in range(count)]


def _print_rows(rows: list[dict[str, Value]]) -> None:
    """What the rows of a preview were augmented by."""
    console = make_console()
    for number, values in enumerate(rows, start=1):
        shown = {name: value for name, value in values.items() if name.startswith("augmentation")}
        console.print(Text(f"row {number}: {settings(shown) or 'as in the base'}"), soft_wrap=True)


def _print_description(description: dict[str, Any]) -> None:
    console = make_console()
    size = f"{description['height']}x{description['width']}, {description['channels']} channel(s)"
    train, val = sum(description["train"].values()), sum(description["validation"].values())
    lines = {
        "data set": f"{description['name']}: {description['images']} images of {size}",
        "split": f"{train} to train, {val} to validate (seed {description['split']['seed']})",
        "test": "there, unopened" if description["has_test"] else _without_test(description["test_fault"]),
        "mean": ", ".join(f"{value:.4f}" for value in description["mean"])
        + " (of the training images in [0, 1])",
        "std": ", ".join(f"{value:.4f}" for value in description["std"]),
        "mirroring": "keeps the labels" if description["mirrors"] else "can change a label: flips are off",
        "converted": ", ".join(f"{n} {mode}" for mode, n in description["converted"].items()) or "none",
        "hash": description["hash"],
    }
    for key, value in (*lines.items(), *(("note", note) for note in description["notes"])):
        console.print(Text(f"{key + ':':<11}{value}"), soft_wrap=True)
    table = Table("class", "train", "validation", title=f"{len(description['classes'])} classes")
    for name in description["classes"]:
        counts = (str(description[part][name]) for part in ("train", "validation"))
        table.add_row(Text(name), *counts)
    console.print(table)


def _without_test(fault: str) -> str:
    return (
        f"there, but retrain will refuse it: {fault}"
        if fault
        else "none: retrain will have nothing to test on"
    )


def list_studies(storage_url: str, as_json: bool) -> None:
    """Print the studies of a database."""
    from studies.listing import list_studies as listed
    from studies.storage import open_storage

    with within("--storage"):
        storage = open_storage(storage_url, create=False)
    rows = listed(storage)
    if as_json:
        _print_json([asdict(row) for row in rows])
        return
    table = Table("study", "space", "data set", "epochs", "closed", "total", "best")
    for row in rows:
        ours = row.space is not None
        table.add_row(
            Text(row.name),
            Text(row.space or "(not ours)"),
            Text(row.dataset or "-"),
            str(row.epochs or "-"),
            str(row.closed),
            str(row.total or ("unlimited" if ours else "-")),
            percent(row.best),
        )
    make_console().print(table)


def show_study(storage_url: str, name: str, as_json: bool, page: int | None = None) -> None:
    """Print a study: its leaderboard, and its trials' curves.

    Args:
        storage_url: where the study is.
        name: the study's.
        as_json: print JSON, with all trials.
        page: which hundred of the trials' curves; None: the last.

    Raises:
        ValueError: if there is no such database, study or page.
    """
    from search.tables import summary_view
    from studies.opening import open_existing
    from studies.plan import PlanStudy
    from studies.storage import open_storage
    from studies.summary import as_json as study_as_json
    from studies.summary import convergence_target, summarize

    with within("--storage"):
        storage = open_storage(storage_url, create=False)
    study = open_existing(storage, name)
    if page is not None and (as_json or isinstance(study, PlanStudy)):
        raise ValueError("--page: is of the table of a search's trials: leave it out")
    if isinstance(study, PlanStudy):
        _show_plan(study, as_json)
        return
    if as_json:
        for piece in study_as_json(study):
            print(piece, end="")  # noqa: T201 (a script reads this)
        return
    console, summary = make_console(), summarize(study)
    shown = _page(summary.attempts, page)
    record = study.record
    console.print(Text(f"question: {summary.question}"))
    console.print(
        Text(
            f"{summary.space} on {summary.dataset}: {summary.train_images} images to train, "
            f"{summary.val_images} to validate, {summary.epochs} epochs, seed {record.seed}, "
            f"{', '.join(summary.device) or 'no device yet'}"
        )
    )
    console.print(summary_view(summary))
    console.print(_curves(study, shown, convergence_target(summary)))
    if len(shown) < summary.attempts:
        console.print(
            Text(
                f"trials {shown[0]} to {shown[-1]} of {summary.attempts}; the others: --page 1 to "
                f"{_pages(summary.attempts)}"
            )
        )


def _pages(trials: int) -> int:
    return max(1, -(-trials // PAGE))


def _page(trials: int, page: int | None) -> range:
    """The numbers of the trials on a page, counted from 1; None: on the last."""
    pages = _pages(trials)
    if page is not None and page > pages:
        raise ValueError(f"--page: must be 1 to {pages}, of {PAGE} trials each, but got {page}")
    first = ((page or pages) - 1) * PAGE
    return range(first, min(first + PAGE, trials))


def _show_plan(plan: PlanStudy, as_json: bool) -> None:
    """Print what a plan's trainings have shown."""
    from search.repeating.tables import ablation_view, finalists_view
    from studies.ablation import Ablation, ablation_in
    from studies.finalists import Finalists, finalists_in
    from studies.study import SearchStudy

    found: Ablation | Finalists | None
    if plan.record.kind == "ablate":
        found = ablation_in(plan)
    else:
        found = finalists_in(plan, SearchStudy(plan.storage, plan.record.parent))
    if as_json:
        _print_json(asdict(found) if found else None)
    elif found is None:
        make_console().print(Text(f"{plan.name}: not every configuration has been trained once yet"))
    else:
        make_console().print(finalists_view(found) if isinstance(found, Finalists) else ablation_view(found))


def _curves(study: SearchStudy, numbers: range, target: float) -> Table:
    from studies.convergence import convergence
    from studies.record import accuracy_of, curve_of, outcome_of

    table = Table(
        title="validation accuracy by epoch",
        caption="area: mean height of the curve; roughness: standard deviation of the change between epochs",
        title_justify="left",
        caption_justify="left",
    )
    columns: dict[str, JustifyMethod] = {
        "trial": "right",
        "ended": "left",
        "accuracy": "right",
        "curve": "left",
        f"epochs to {percent(target)}": "right",
        "area": "right",
        "roughness": "right",
    }
    for column, justify in columns.items():
        table.add_column(column, justify=justify)
    table.add_column("settings", overflow="fold")
    for trial in study.whole_trials(numbers):
        outcome, curve = outcome_of(trial), curve_of(trial)
        figures = convergence(curve, target)
        table.add_row(
            str(trial.number),
            outcome.reason if outcome else trial.state.name.lower(),
            percent(accuracy_of(trial)),
            sparkline(curve),
            str(figures.epochs_to_target or "-"),
            percent(figures.area),
            percent(figures.roughness),
            Text(settings(study.fitting(trial).params)),
        )
    return table
