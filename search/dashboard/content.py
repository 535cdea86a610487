"""What our studies show on the dashboard besides notes: figures, pictures and exported configurations."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from spaces.config import Configuration, SupervisedContrastive
from studies.ablation import Ablation, ablation_in, ablation_of
from studies.artifacts import Artifact
from studies.base import Study
from studies.effects import read_effects
from studies.export import ExportedConfiguration, as_yaml, of_trial
from studies.finalists import finalists_in, finalists_of
from studies.observations import observe
from studies.plan import ENTRY, PlanStudy
from studies.record import confusion_of, curve_of, history_of, setup_of, text_of
from studies.study import SearchStudy
from studies.summary import Entry, ranked
from studies.text import percent

if TYPE_CHECKING:
    from studies.figures import Chart

TOP = 5
"""Configurations of a search whose trials get pictures, besides the finalists."""
MOST_ENTRIES = 12
"""Configurations of a plan, of each of which one trial gets pictures."""
MOST_LEVELS, MOST_PAIRS, MOST_POINTS = 8, 3, 200
"""Parameters, pairs of parameters and configurations (the best ones) that figures show."""
RESAMPLES = 20
"""For the spread of importances: each takes about 30 ms, whenever a trial ends."""
PNG = "image/png"
TEXT = "text/plain; charset=utf-8"
"""So that a browser shows it."""
_ENDINGS = ("running", "failed", "pruned", "stopped early")
"""Observations that the result says already."""


def observed(study: Study, trial: FrozenTrial) -> list[str]:
    """What the trial's curves show, in words."""
    observations = observe(trial, len(study.data.classes))
    return [each.text for each in observations if each.kind not in _ENDINGS]


def deserving(study: Study) -> list[tuple[FrozenTrial, Entry | None]]:
    """The trials that get artifacts: the best of a search and its finalists, each with its place on the
    leaderboard, and of each configuration of a plan its first run."""
    if isinstance(study, PlanStudy):
        return [(trial, None) for trial in _first_runs(study)[:MOST_ENTRIES]]
    if not isinstance(study, SearchStudy):
        return []
    entries = {entry.trials[0]: entry for entry in _best_and_finalists(study)}
    trials = {trial.number: trial for trial in study.whole_trials(entries)}
    return [(trials[number], entry) for number, entry in entries.items()]


def artifacts_of(
    study: Study, trial: FrozenTrial, entry: Entry | None, storage_url: str
) -> Iterable[Artifact]:
    """The artifacts of one of the trials that deserve some."""
    yield from _pictures(study, trial)
    if isinstance(study, SearchStudy) and entry is not None:
        yield _exported(study, entry, storage_url)


def _best_and_finalists(study: SearchStudy) -> list[Entry]:
    finalists = finalists_of(study.storage, study.name)
    confirmed = {number for each in finalists.finalists for number in each.trials} if finalists else set()
    board = [entry for entry in ranked(study) if entry.fingerprint]
    return [entry for rank, entry in enumerate(board) if rank < TOP or not confirmed.isdisjoint(entry.trials)]


def _first_runs(plan: PlanStudy) -> list[FrozenTrial]:
    """Of each configuration the completed trial of its first block."""
    first: dict[str, FrozenTrial] = {}
    for (fingerprint, _), trial in sorted(plan.closed_trials().items(), key=lambda item: item[0][1]):
        if trial.state == TrialState.COMPLETE:
            first.setdefault(fingerprint, trial)
    return list(first.values())


def _pictures(study: Study, trial: FrozenTrial) -> Iterable[Artifact]:
    label = text_of(trial, ENTRY) if isinstance(study, PlanStudy) else ""
    heading = f"{study.name}, trial {trial.number}" + (f" ({label})" if label else "")
    score = f"validation accuracy {percent(trial.value)}, one run"
    source = [heading, score, study.data.classes]
    if curve_of(trial):
        curves = [curve_of(trial), history_of(trial).model_dump(mode="json")]
        draw = partial(_draw_curves, study, trial, heading, score)
        yield Artifact("learning-curves.png", PNG, ["curves 1", *source, curves], draw)
    if confusion := confusion_of(trial):
        draw = partial(_draw_confusion, study, confusion, heading, score)
        yield Artifact("confusion-matrix.png", PNG, ["confusion 1", *source, confusion], draw)


def _draw_curves(study: Study, trial: FrozenTrial, heading: str, score: str) -> bytes:
    from search.pictures.curves import Curves, draw_learning_curves

    history = history_of(trial)
    curves = Curves(
        train_loss=history.train_loss,
        train_accuracy=history.train_accuracy,
        val_loss=history.val_loss,
        val_accuracy=curve_of(trial),
        first_of_classes=_epochs_of_features(trial) + 1,
    )
    return _drawn(lambda path: draw_learning_curves([curves], path, heading, score))


def _draw_confusion(study: Study, confusion: list[list[int]], heading: str, score: str) -> bytes:
    import numpy as np

    from search.pictures.confusion import draw_confusion_matrix

    counts_KK = np.array(confusion, np.int64)
    below = f"{counts_KK.sum()} validation images; {score}"
    return _drawn(lambda path: draw_confusion_matrix(counts_KK, study.data.classes, path, heading, below))


def _drawn(draw: Callable[[Path], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        return path.read_bytes()


def _epochs_of_features(trial: FrozenTrial) -> int:
    """Epochs that precede those which learn classes."""
    setup = setup_of(trial)
    loss = setup.configuration.get("loss", {}) if setup else {}
    if setup is None or loss.get("name") != "supervised-contrastive":
        return 0
    configuration = Configuration.read(setup.configuration, f"trial {trial.number}")
    assert isinstance(configuration.loss, SupervisedContrastive)
    return configuration.loss.feature_epochs(configuration.training.epochs)


def _exported(study: SearchStudy, entry: Entry, storage_url: str) -> Artifact:
    number = entry.trials[0]
    return Artifact(
        f"trial-{number}.yaml",
        TEXT,
        ["export 1", study.name, entry.fingerprint, entry.trials, entry.accuracy],
        lambda: as_yaml(_with_command(of_trial(study, storage_url, number))).encode(),
    )


def _with_command(export: ExportedConfiguration) -> ExportedConfiguration:
    """With the command that retrains it, from the name under which a browser saves it."""
    name = f"trial-{export.trial}"
    command = f"cifar-search retrain {name}.yaml --seeds 3 -o runs/{name}"
    return export.model_copy(update={"command": command})


def charts_of(study: Study) -> Iterable[Callable[[], list[Chart]]]:
    """What draws the study's figures, one after the other, so that one that fails keeps no other from it."""
    if isinstance(study, SearchStudy):
        yield partial(_effects, study)
        yield partial(_cost, study)
        yield partial(_finalists, study)
        yield partial(_ablation, study)
    if isinstance(study, PlanStudy):
        yield partial(_own_result, study)


def _effects(study: SearchStudy) -> list[Chart]:
    from studies.figures import importance_chart, interaction_charts, level_charts

    effects = read_effects(study, resamples=RESAMPLES)
    charts = [*level_charts(effects)[:MOST_LEVELS], importance_chart(effects.importances)]
    charts += interaction_charts(effects.interactions)[:MOST_PAIRS]
    return [chart for chart in charts if chart is not None]


def _cost(study: SearchStudy) -> list[Chart]:
    from studies.figures import cost_chart
    from studies.figures.cost import priced

    entries = ranked(study)[:MOST_POINTS]
    trials = {trial.number: trial for trial in study.trials_in_brief()}
    points = priced(entries, trials, finalists_of(study.storage, study.name))
    chart = cost_chart(points, study.record.split.val_images)
    return [] if chart is None else [chart]


def _finalists(study: SearchStudy) -> list[Chart]:
    from studies.figures import finalists_chart

    found = finalists_of(study.storage, study.name)
    return [] if found is None else [finalists_chart(found)]


def _ablation(study: SearchStudy) -> list[Chart]:
    found = ablation_of(study.storage, study.name)
    return [] if found is None else _drawn_ablation(found)


def _drawn_ablation(found: Ablation) -> list[Chart]:
    from studies.figures import ablation_chart

    chart = ablation_chart(found)
    return [] if chart is None else [chart]


def _own_result(plan: PlanStudy) -> list[Chart]:
    """What the plan itself has shown."""
    from studies.figures import finalists_chart

    if plan.record.kind == "ablate":
        found = ablation_in(plan)
        return [] if found is None else _drawn_ablation(found)
    finalists = finalists_in(plan, SearchStudy(plan.storage, plan.record.parent))
    return [] if finalists is None else [finalists_chart(finalists)]
