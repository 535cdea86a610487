"""The steps between two configurations: what moves together, and that each leads where it should."""

import optuna
import pytest

from spaces.ablation import leaves, moved, step_groups
from spaces.config import Configuration
from spaces.space import Space

SPACE = """
question: What helps?
base:
  model: {name: vgg, dropout: 0.0}
  optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
parameters:
  optimizer.name: {choice: [sgd, adam], role: scientific}
  optimizer.lr@sgd: {float: [1e-3, 1.0], log: true, role: nuisance, when: {optimizer.name: sgd}}
  optimizer.lr@adam: {float: [1e-5, 1e-2], log: true, role: nuisance, when: {optimizer.name: adam}}
  optimizer.weight_decay: {float: [1e-6, 1e-2], log: true, role: nuisance}
  augmentation: {choice: {none: {}, some: {flip: 0.5, shift: 4}}, role: scientific}
  model.order: {choice: [norm-dropout, norm], role: scientific}
  model.dropout: {float: [0.0, 0.5], step: 0.1, role: nuisance, when: {model.order: norm-dropout}}
  loss.label_smoothing: {choice: [0.0, 0.1], role: scientific}
"""
WINNER = {
    "optimizer.name": "adam",
    "optimizer.lr@adam": 3e-4,
    "optimizer.weight_decay": 1e-4,
    "augmentation": "some",
    "model.order": "norm-dropout",
    "model.dropout": 0.3,
    "loss.label_smoothing": 0.1,
}


@pytest.fixture(scope="module")
def space():
    return Space.read(SPACE, "mine", "mine")


def groups(space, **arguments):
    found = step_groups(space.base, space.configure(WINNER), space.parameters, **arguments)
    return {group.label: set(group.changes) for group in found}


def test_each_parameter_is_a_step_and_another_optimizer_moves_with_all_that_is_its_own(space):
    assert groups(space) == {
        "augmentation": {"augmentation.flip", "augmentation.shift"},
        "model.dropout": {"model.dropout"},
        "optimizer.name": {path for path in _differing(space) if path.startswith("optimizer.")},
        "loss.label_smoothing": {"loss.label_smoothing"},
    }


def _differing(space):
    before, after = leaves(space.base.tree()), leaves(space.configure(WINNER).tree())
    return {path for path in {*before, *after} if before.get(path, "-") != after.get(path, "-")}


def test_the_groups_share_out_every_difference(space):
    found = groups(space)
    assert set().union(*found.values()) == _differing(space)
    assert sum(map(len, found.values())) == len(_differing(space))


def test_within_one_optimizer_its_settings_are_steps_of_their_own(space):
    values = {key: value for key, value in WINNER.items() if key != "optimizer.lr@adam"}
    values |= {"optimizer.name": "sgd", "optimizer.lr@sgd": 0.2}
    winner = space.configure(values)
    labels = [group.label for group in step_groups(space.base, winner, space.parameters)]
    assert "optimizer.lr" in labels
    assert "optimizer.weight_decay" in labels


def test_a_conditional_parameter_moves_with_its_parent(space):
    base = moved(space.base, space.configure(WINNER), ["model.dropout"])
    values = {key: value for key, value in WINNER.items() if key != "model.dropout"} | {"model.order": "norm"}
    winner = space.configure(values)
    winner = moved(winner, space.base, ["model.dropout"])
    both = {group.label: set(group.changes) for group in step_groups(base, winner, space.parameters)}
    assert both["model.dropout + model.order"] == {"model.dropout", "model.order"}
    alone = {group.label for group in step_groups(base, winner, ())}
    assert {"model.dropout", "model.order"} <= alone


def test_groups_that_are_named_move_together(space):
    together = (("model.dropout", "loss.label_smoothing"), ("augmentation", "model"))
    joined = groups(space, together=together)
    assert {
        "augmentation.flip",
        "augmentation.shift",
        "model.dropout",
        "loss.label_smoothing",
    } in joined.values()


def test_by_default_a_learning_rate_moves_with_its_schedule():
    base = Configuration.read({"optimizer": {"name": "sgd", "lr": 0.1}, "schedule": {"name": "constant"}})
    winner = Configuration.read({"optimizer": {"name": "sgd", "lr": 0.2}, "schedule": {"name": "cosine"}})
    (group,) = step_groups(base, winner)
    assert set(group.changes) >= {"optimizer.lr", "schedule.name"}


def test_a_presets_settings_are_steps_of_their_own():
    space = Space.load("vgg-regularization")
    winner = space.configure({"preset": "all"})
    labels = [group.label for group in step_groups(space.base, winner, space.parameters)]
    assert len(labels) > 2
    assert any("dropout" in label for label in labels)
    assert any("augmentation" in label for label in labels)


def test_changes_name_both_settings_and_none_where_there_is_none(space):
    found = {g.label: g.changes for g in step_groups(space.base, space.configure(WINNER), space.parameters)}
    assert found["model.dropout"] == {"model.dropout": (0.0, 0.3)}
    assert found["optimizer.name"]["optimizer.momentum"] == (0.9, None)
    assert found["optimizer.name"]["optimizer.beta1"] == (None, 0.9)


def test_taking_all_steps_leads_from_one_to_the_other_and_back(space):
    base, winner = space.base, space.configure(WINNER)
    there, back = base, winner
    for group in step_groups(base, winner, space.parameters):
        there, back = moved(there, winner, group.changes), moved(back, base, group.changes)
    assert there == winner
    assert back == base


def test_a_step_changes_its_own_settings_only(space):
    base, winner = space.base, space.configure(WINNER)
    for group in step_groups(base, winner, space.parameters):
        before, after = leaves(base.tree()), leaves(moved(base, winner, group.changes).tree())
        changed = {path for path in {*before, *after} if before.get(path, "-") != after.get(path, "-")}
        assert changed == set(group.changes)


def test_what_cannot_be_alone_is_refused():
    base = Configuration.read({"training": {"epochs": 1}})
    winner = Configuration.read({"training": {"epochs": 4}, "loss": {"name": "supervised-contrastive"}})
    groups = {group.label: group.changes for group in step_groups(base, winner)}
    with pytest.raises(ValueError, match=r"training\.epochs"):
        moved(base, winner, groups["loss.name"])


SEVERAL = ["regularization", "optimizer", "full", "vgg-to-resnet", "resnet", "fast-94"]


@pytest.mark.parametrize("name", SEVERAL)
def test_all_steps_between_the_base_and_draws_of_a_built_in_space_lead_to_the_draw(name):
    space = Space.load(name)
    draws = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(5):
        winner = space.configure(space.suggest(draws.ask()))
        groups = step_groups(space.base, winner, space.parameters)
        assert moved(space.base, winner, [path for group in groups for path in group.changes]) == winner
        assert len({group.label for group in groups}) == len(groups)


REFUSED = {
    "together: {a: b}": "together: must be a list of groups",
    "together: [[optimizer.name]]": "each of two or more paths",
    "together: [[optimizer.name, 3]]": "each of two or more paths",
    "together: [[optimizer.name, scedule]]": "did you mean 'schedule'?",
}


@pytest.mark.parametrize("line", REFUSED)
def test_groups_in_a_space_file_are_checked(line):
    with pytest.raises(ValueError, match="together") as refused:
        Space.read(f"{line}\n{SPACE}", "mine", "mine")
    assert REFUSED[line] in str(refused.value)


def test_groups_in_a_space_file_are_kept_and_do_not_make_another_search(space):
    grouped = Space.read(f"together: [[model.order, loss]]\n{SPACE}", "mine", "mine")
    assert grouped.together == (("model.order", "loss"),)
    assert Space.read(grouped.to_yaml(), "mine", "mine").together == grouped.together
    assert grouped.fingerprint() == space.fingerprint()
    assert space.together is None
