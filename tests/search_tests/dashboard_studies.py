"""Studies to be shown on a dashboard: searches whose trials have curves, and text that would be markup."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from spaces.config import Configuration
from spaces.space import Space
from studies.ablation import ablate_name, remember_variants, variants
from studies.base import Study
from studies.finalists import choose_top, confirm_name, remember_choices
from studies.plan import PlanRecord, PlanStudy, open_plan
from studies.record import DataRecord, Drawing, History, Outcome, SplitRecord, SplitSpec, StudyRecord
from studies.study import SearchStudy, open_study

EVIL = '<img src=x onerror="document.title=`owned`;alert(1)">[x](javascript:alert(2))<b id=planted>'
"""What a name could hold that wants to become part of a page."""
SPACE = """
question: Which optimizer, and how much dropout?
base: {training: {epochs: 6}}
parameters:
  optimizer.name: {choice: [sgd, adam], role: scientific}
  optimizer.momentum: {float: [0.5, 0.99], role: nuisance, when: {optimizer.name: sgd}}
  optimizer.lr: {float: [1e-3, 1.0], log: true, role: nuisance}
  model.dropout: {float: [0.0, 0.4], step: 0.1, role: scientific}
"""


def make_search(
    storage: RDBStorage,
    name: str,
    trials: int,
    *,
    class_name: str = "one",
    question: str = "",
    option: str = "",
) -> SearchStudy:
    """A search of 6 epochs with this many closed trials: mostly completed, every fifth pruned."""
    text = SPACE.replace("Which optimizer, and how much dropout?", question) if question else SPACE
    if option:
        text = text.replace(
            "model.dropout: {float: [0.0, 0.4], step: 0.1",
            f"model.dropout: {{choice: {{{option!r}: 0.1, b: 0.2}}",
        )
    space = Space.read(text, "mine", "mine")
    described = StudyRecord(
        space_name="mine", space=space.to_yaml(), space_fingerprint=space.fingerprint(),
        data=DataRecord(name="digits", hash="d" * 64, classes=("zero", class_name, "two"), shape=(8, 8, 1),
                        source="digits"),
        split=SplitRecord(seed=0, val_size=0.1, hash="s" * 64, train_images=1287, val_images=150),
        epochs=6, precision="fp32", seed=0, sampler="random", pruner="asha",
    )  # fmt: skip
    study = open_study(storage, name, described, max(40, trials))
    for number in range(trials):
        add_trial(study, number)
    return study


def make_plan(storage: RDBStorage, study: SearchStudy, top: int = 3, blocks: int = 2) -> PlanStudy:
    """The best configurations of a search, repeated."""
    record = PlanRecord(
        kind="confirm", parent=study.name, question=study.space.question, data=study.data,
        split=SplitSpec(seed=0, val_size=0.1), folds=None, epochs=6,
    )  # fmt: skip
    plan = open_plan(storage, confirm_name(study.name, None), record)
    choices = choose_top(study, top)
    remember_choices(plan, choices, None)
    plan.owe([choice.planned() for choice in choices], blocks)
    for number in range(len(choices) * blocks):
        add_trial(plan, 5 * number)
    return plan


def make_ablation(storage: RDBStorage, study: SearchStudy, blocks: int = 2) -> PlanStudy:
    """The best configuration of a search, taken apart."""
    record = PlanRecord(
        kind="ablate", parent=study.name, question=study.space.question, data=study.data,
        split=SplitSpec(seed=0, val_size=0.1), folds=None, epochs=6,
    )  # fmt: skip
    plan = open_plan(storage, ablate_name(study.name), record)
    winner = Configuration.read(choose_top(study, 1)[0].configuration)
    made, refused = variants(study.space.base, winner, study.space.parameters)
    remember_variants(plan, made, refused, "trial 0")
    plan.owe([variant.planned() for variant in made], blocks)
    for number in range(len(made) * blocks):
        add_trial(plan, 5 * number)
    return plan


def add_trial(study: Study, number: int, **outcome: Any) -> None:
    """Run the next slot to its end, without training."""
    claimed = study.claim("somewhere:x:1:2", Drawing(sampler="random"))
    assert claimed is not None
    pruned = number % 5 == 4
    epochs, goal = (3 if pruned else 6), 0.5 + 0.45 * ((number * 7) % 11) / 11
    curve = [goal * (1 - 0.5 ** (epoch + 1)) for epoch in range(epochs)]
    for epoch, value in enumerate(curve, start=1):
        claimed.trial.report(value, epoch)
    history = History(
        train_loss=tuple(2.0 * 0.6**epoch for epoch in range(epochs)),
        train_accuracy=tuple(min(1.0, value + 0.03) for value in curve),
        val_loss=tuple(2.1 * 0.65**epoch for epoch in range(epochs)),
        lr=(0.1,) * epochs,
        seconds=(1.0,) * epochs,
    )
    ended = Outcome(
        reason="pruned" if pruned else "finished", epoch=epochs, seconds=float(epochs + number % 3),
        parameters=10_000 + 1_000 * (number % 4), multiply_adds=2_000_000 + 50_000 * (number % 4),
        device="cpu", versions={"torch": "2"}, **outcome,
    )  # fmt: skip
    right = round(50 * curve[-1])
    confusion = [[right if i == j else (50 - right) // 2 for j in range(3)] for i in range(3)]
    state = TrialState.PRUNED if pruned else TrialState.COMPLETE
    study.close(claimed.trial_id, state, ended, history, None if pruned else curve[-1], confusion)


def make_foreign(storage: RDBStorage, name: str) -> optuna.Study:
    """A study of somebody else's program in the same database."""
    study = optuna.create_study(study_name=name, storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=3)
    return study


def everything(storage: RDBStorage, study_id: int) -> object:
    """All that a database holds of a study, to compare."""
    study = next(each for each in storage.get_all_studies() if each._study_id == study_id)
    return study.user_attrs, study.system_attrs, [t.__dict__ for t in storage.get_all_trials(study_id)]
