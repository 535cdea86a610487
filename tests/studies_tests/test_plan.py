"""Plans: what they owe, in which order, on which blocks, and what their results are."""

from contextlib import closing

import numpy as np
import pytest
from made_studies import BALANCED, FREE, claim, end, make_study, run_all
from optuna.trial import TrialState

from spaces.config import Configuration
from studies.ablation import ablation_in, remember_variants, variants
from studies.finalists import (
    choose_per_level,
    choose_top,
    confirm_name,
    finalists_in,
    finalists_of,
    remember_choices,
)
from studies.plan import PlannedEntry, PlanRecord, PlanStudy, Results, find_plan, open_plan
from studies.record import DataRecord, Drawing, Outcome, SplitSpec, setup_of
from studies.statistics import compare, mean_interval
from studies.storage import open_storage
from studies.study import SearchStudy

DATA = DataRecord(name="digits", hash="d", classes=("0", "1"), shape=(8, 8, 1))


@pytest.fixture
def storage(sqlite_url):
    with closing(open_storage(sqlite_url, create=True)) as opened:
        yield opened


def entry(label, lr):
    tree = {"optimizer": {"name": "sgd", "lr": lr}, "training": {"epochs": 10}}
    return PlannedEntry.of(label, Configuration.read(tree))


A, B, C = (entry(label, lr) for label, lr in (("a", 0.1), ("b", 0.2), ("c", 0.3)))


def record(**changes):
    values = {
        "kind": "confirm",
        "parent": "s",
        "question": "?",
        "data": DATA,
        "split": SplitSpec(seed=5, val_size=100, train_size=50),
        "folds": None,
        "epochs": 10,
    }
    return PlanRecord(**{**values, **changes})


def run_one(plan, value=0.5, reason="finished"):
    claimed = claim(plan, "random")
    end(plan, claimed, reason, value)
    return claimed


def planned(plan):
    entries = plan.entries()
    return [(entries[e].label, b) for e, b in plan.cells()]


def test_every_entry_runs_on_every_block_and_blocks_come_one_after_the_other(storage):
    plan = open_plan(storage, "s/confirm", record())
    plan.owe([A, B], 2)
    assert planned(plan) == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    claims = [run_one(plan) for _ in range(4)]
    assert [c.configuration.optimizer.lr for c in claims] == [0.1, 0.2, 0.1, 0.2]
    assert plan.is_complete()
    assert plan.claim("w", Drawing(sampler="random")) is None


def test_a_block_is_one_seed_and_one_split_for_all_and_blocks_differ(storage):
    plan = open_plan(storage, "s/confirm", record())
    plan.owe([A, B], 3)
    claims = [run_one(plan) for _ in range(6)]
    blocks = [(c.seed, c.split.seed) for c in claims]
    assert blocks[0::2] == blocks[1::2]
    assert len(set(blocks)) == 3
    assert len({seed for block in blocks for seed in block} | {5}) == 7
    assert {(c.split.val_size, c.split.train_size, c.split.pooled) for c in claims} == {(100, 50, True)}


def test_blocks_depend_on_the_searchs_seed_alone(storage):
    first = open_plan(storage, "s/confirm", record())
    second = open_plan(storage, "t/confirm", record(parent="t"))
    other = open_plan(storage, "u/confirm", record(split=SplitSpec(seed=6)))
    assert [first.block(b) for b in range(4)] == [second.block(b) for b in range(4)]
    assert all(first.block(b)[0] != other.block(b)[0] for b in range(4))


def test_an_ablation_never_meets_the_blocks_that_its_winner_was_chosen_on(storage):
    confirmed_on = open_plan(storage, "s/confirm", record())
    ablated_on = open_plan(storage, "s/ablate", record(kind="ablate"))
    first, second = ([plan.block(b) for b in range(20)] for plan in (confirmed_on, ablated_on))
    assert not {seed for seed, _ in first} & {seed for seed, _ in second}
    assert not {split.seed for _, split in first} & {split.seed for _, split in second}


def test_folds_share_a_seed_of_the_split_and_come_in_turn(storage):
    plan = open_plan(storage, "s/confirm-3-fold", record(folds=3))
    splits = [plan.block(block)[1] for block in range(6)]
    assert [split.fold for split in splits] == [0, 1, 2, 0, 1, 2]
    assert {split.folds for split in splits} == {3}
    assert len({split.seed for split in splits[:3]}) == 1
    assert splits[0].seed != splits[3].seed
    assert splits[0].val_size is None


def test_a_plan_that_grows_keeps_what_it_has(storage):
    plan = open_plan(storage, "s/confirm", record())
    plan.owe([A, B], 2)
    first = [run_one(plan) for _ in range(3)]
    plan.owe([A, B, C], 3)
    assert planned(plan)[:3] == [("a", 0), ("b", 0), ("a", 1)]
    assert sorted(planned(plan)) == sorted((label, block) for label in "abc" for block in range(3))
    assert plan.total() == 9
    rest = [run_one(plan) for _ in range(6)]
    assert plan.is_complete()
    assert len({(c.configuration.optimizer.lr, c.seed) for c in [*first, *rest]}) == 9


def test_what_has_not_begun_and_is_not_wanted_any_more_is_dropped(storage):
    plan = open_plan(storage, "s/confirm", record())
    plan.owe([A, B, C], 10)
    for _ in range(4):
        run_one(plan)
    assert plan.owe([A, B], 2) == 30 - 5
    assert planned(plan) == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1)]


def test_what_failed_for_good_is_tried_again_when_it_is_asked_for_again(storage):
    plan = open_plan(storage, "s/confirm", record())
    plan.owe([A, B], 1)
    run_one(plan, 0.5)
    run_one(plan, 0.0, reason="out of memory")
    assert Results(plan, [A.fingerprint, B.fingerprint]).missing == ["b has no result"]
    plan.owe([A, B], 1)
    assert planned(plan) == [("a", 0), ("b", 0), ("b", 0)]
    run_one(plan, 0.6)
    assert plan.is_complete()
    np.testing.assert_allclose(Results(plan, [A.fingerprint, B.fingerprint]).values_EB, [[0.5], [0.6]])
    plan.owe([A, B], 1)
    assert plan.is_complete()


def test_what_another_command_is_at_work_on_is_not_dropped(storage):
    plan = open_plan(storage, "s/confirm", record())
    plan.owe([A, B], 3)
    claim(plan, "random")
    PlanStudy(storage, "s/confirm").owe([C], 1)
    assert sorted(planned(plan)) == [*((x, b) for x in "ab" for b in range(3)), ("c", 0)]


def test_repetitions_of_an_earlier_search_of_the_same_name_are_not_this_ones(storage):
    study = search_of(storage, FREE, lambda p: 0.5 + p["model.dropout"])
    plan = open_plan(storage, "s/confirm", record(parent_id="another"))
    choices = choose_top(study, 2)
    plan.owe([choice.planned() for choice in choices], 1)
    remember_choices(plan, choices, None)
    run_one(plan)
    run_one(plan)
    assert finalists_of(storage, "s") is None
    with pytest.raises(ValueError, match="the search"):
        open_plan(storage, "s/confirm", record())


def test_what_is_running_is_not_dropped(storage):
    plan = open_plan(storage, "s/confirm", record())
    plan.owe([A, B, C], 1)
    running = [claim(plan, "random") for _ in range(3)]
    assert plan.owe([A], 1) == 0
    assert planned(plan) == [("a", 0), ("b", 0), ("c", 0)]
    for each in running:
        end(plan, each, "finished")
    assert plan.is_complete()


def test_an_interrupted_training_is_owed_again_with_the_same_seed_and_split(storage):
    plan = open_plan(storage, "s/confirm", record())
    plan.owe([A, B], 1)
    first = claim(plan, "random")
    end(plan, first, "interrupted")
    again = claim(plan, "random")
    assert (again.slot, again.seed, again.split) == (first.slot, first.seed, first.split)
    assert again.configuration == first.configuration


def test_an_entry_takes_its_new_label(storage):
    plan = open_plan(storage, "s/confirm", record())
    plan.owe([A], 1)
    plan.owe([PlannedEntry.of("better", Configuration.read(A.configuration)), B], 1)
    assert [each.label for each in plan.entries()] == ["better", "b"]


def test_another_plan_of_the_same_name_is_refused(storage):
    open_plan(storage, "s/confirm", record())
    with pytest.raises(ValueError, match="the epochs is 10 there, but 20 now"):
        open_plan(storage, "s/confirm", record(epochs=20))
    with pytest.raises(ValueError, match="the split"):
        open_plan(storage, "s/confirm", record(split=SplitSpec(seed=7)))
    make_study(storage, FREE, 1, name="taken")
    with pytest.raises(ValueError, match="is no plan"):
        open_plan(storage, "taken", record())


def test_a_search_is_no_plan_and_nothing_is_none(storage):
    make_study(storage, FREE, 1, name="s")
    assert find_plan(storage, "s") is None
    assert find_plan(storage, "nothing") is None
    assert find_plan(storage, open_plan(storage, "s/confirm", record()).name) is not None


def test_results_are_of_complete_blocks(storage):
    plan = open_plan(storage, "s/confirm", record())
    plan.owe([A, B], 3)
    for value in (0.1, 0.2, 0.3, 0.4, 0.5):
        run_one(plan, value)
    results = Results(plan, [B.fingerprint, A.fingerprint])
    np.testing.assert_allclose(results.values_EB, [[0.2, 0.4], [0.1, 0.3]])
    assert results.missing == ["incomplete block(s) are left out: 2"]


def test_a_training_that_diverged_counts_with_its_last_accuracy_and_one_that_failed_does_not(storage):
    plan = open_plan(storage, "s/confirm", record())
    plan.owe([A, B, C], 2)
    run_one(plan, 0.8)
    run_one(plan, 0.1, reason="diverged")
    run_one(plan, 0.0, reason="out of memory")
    run_one(plan, 0.7)
    run_one(plan, 0.6)
    run_one(plan, 0.0, reason="out of memory")
    results = Results(plan, [A.fingerprint, B.fingerprint, C.fingerprint])
    np.testing.assert_allclose(results.values_EB, [[0.8, 0.7], [0.1, 0.6]])
    assert results.missing[0] == "c has no result"
    assert results.missing[1] == "1 of 2 trainings of b diverged, and count as they are"


def search_of(storage, space, accuracy, total=12):
    study = make_study(storage, space, total)
    run_all(study, accuracy)
    return study


def confirmed(storage, study, choices, blocks, value, parameter=None):
    """A plan of these choices, whose results are ``value(choice index, block)``."""
    plan = open_plan(storage, confirm_name(study.name, None), record(parent=study.name))
    plan.owe([choice.planned() for choice in choices], blocks)
    remember_choices(plan, choices, parameter)
    order = [choice.entry.fingerprint for choice in choices]
    while not plan.is_complete():
        claimed = claim(plan, "random")
        trial = plan.trials()[claimed.trial.number]
        index = order.index(setup_of(trial).fingerprint)
        outcome = Outcome(reason="finished", epoch=10, seconds=10.0 - index, parameters=7, multiply_adds=9)
        plan.close(claimed.trial_id, TrialState.COMPLETE, outcome, None, value(index, trial.params["block"]))
    return plan


NOISE = np.random.default_rng(0).normal(0, 0.01, (4, 5))
EFFECT = [0.70, 0.74, 0.60, 0.735]


def measured(index, block):
    return float(EFFECT[index] + 0.02 * block + NOISE[index, block])


def test_finalists_against_an_independent_calculation(storage):
    study = search_of(storage, FREE, lambda p: 0.5 + p["model.dropout"] + 0.1 * p["optimizer.lr"])
    choices = choose_top(study, 4)
    before = [(t.number, t.state, t.value) for t in study.trials()]
    plan = confirmed(storage, study, choices, 5, measured)
    found = finalists_of(storage, "s")
    values = np.array([[measured(i, b) for b in range(5)] for i in range(4)])
    order = np.argsort(-values.mean(1))
    assert [f.trials for f in found.finalists] == [choices[i].entry.trials for i in order]
    comparison, best = compare(values), int(order[0])
    for i, finalist in zip(order, found.finalists, strict=True):
        assert finalist.mean == pytest.approx(values[i].mean())
        assert finalist.spread == pytest.approx(values[i].std(ddof=1))
        assert finalist.interval == mean_interval(values[i].tolist())
        assert finalist.search_accuracy == pytest.approx(choices[i].entry.accuracy)
        assert finalist.gap == pytest.approx(choices[i].entry.accuracy - values[i].mean())
        assert finalist.distinguished == comparison.distinguished(int(i), best)
        if i != best:
            assert finalist.difference.low == pytest.approx(comparison.interval(int(i), best).low)
    assert found.finalists[0].difference is None
    assert [f.distinguished for f in found.finalists] == [False, False, True, True]
    assert [f.cheapest for f in found.finalists] == [False, True, False, False]  # the later the cheaper
    assert found.degrees_of_freedom == 12
    assert (found.blocks, found.folds, found.parameter, plan.name) == (5, None, None, "s/confirm")
    again = SearchStudy(storage, "s")
    assert [(t.number, t.state, t.value) for t in again.trials()] == before
    assert again.total() == 12


def test_the_best_of_each_level_is_repeated(storage):
    study = search_of(storage, BALANCED, lambda p: {"sgd": 0.9, "adam": 0.8}.get(p["optimizer.name"], 0.3))
    choices = choose_per_level(study, "optimizer.name")
    assert [choice.level for choice in choices] == ["sgd", "adam", "rmsprop"]
    assert [choice.entry.parameters["optimizer.name"] for choice in choices] == ["sgd", "adam", "rmsprop"]
    confirmed(storage, study, choices, 3, measured, "optimizer.name")
    found = finalists_of(storage, "s", "optimizer.name")
    assert found.parameter == "optimizer.name"
    assert {f.level for f in found.finalists} == {"sgd", "adam", "rmsprop"}
    assert finalists_of(storage, "s") == found
    assert finalists_of(storage, "s", "another") is None


def test_what_was_asked_for_last_is_shown_and_all_levels_are_kept_beside_it(storage):
    study = search_of(storage, BALANCED, lambda p: 0.5 + 0.1 * p.get("optimizer.lr@sgd", 0.0))
    confirmed(storage, study, choose_per_level(study, "optimizer.name"), 2, measured, "optimizer.name")
    confirmed(storage, study, choose_top(study, 2), 2, measured)
    assert len(finalists_of(storage, "s").finalists) == 2
    assert len(finalists_of(storage, "s", "optimizer.name").finalists) == 3


def test_nothing_is_found_before_a_block_is_complete(storage):
    study = search_of(storage, FREE, lambda p: 0.5 + p["model.dropout"])
    assert finalists_of(storage, "s") is None
    plan = open_plan(storage, "s/confirm", record())
    choices = choose_top(study, 3)
    plan.owe([choice.planned() for choice in choices], 2)
    remember_choices(plan, choices, None)
    assert finalists_in(plan, study) is None


def test_one_finalist_on_one_block_has_a_mean_and_no_interval(storage):
    study = search_of(storage, FREE, lambda p: 0.5)
    confirmed(storage, study, choose_top(study, 1), 1, measured)
    (only,) = finalists_of(storage, "s").finalists
    assert (only.mean, only.spread, only.interval, only.difference) == (measured(0, 0), None, None, None)


def test_choices_are_refused_with_the_reason(storage):
    empty = make_study(storage, FREE, 4, name="empty")
    with pytest.raises(ValueError, match="no completed trial yet"):
        choose_top(empty, 3)
    study = search_of(storage, FREE, lambda p: 0.5)
    with pytest.raises(ValueError, match=r"unknown parameter 'optimizer\.name'"):
        choose_per_level(study, "optimizer.name")


def test_an_ablation_against_an_independent_calculation(storage):
    base = Configuration.read({"training": {"epochs": 10}})
    changed = {"model": {"name": "vgg", "dropout": 0.3}, "augmentation": {"flip": 0.5}}
    winner = Configuration.read({"training": {"epochs": 10}, **changed})
    made, refused = variants(base, winner)
    kinds = [variant.kind for variant in made]
    assert kinds == ["base", *["base with"] * 2, "winner", *["winner without"] * 2]
    assert not refused
    assert len({v.configuration.fingerprint() for v in made}) == 4  # two settings: in and out are the same
    plan = open_plan(storage, "s/ablate", record(kind="ablate"))
    plan.owe([v.planned() for v in made], 3)
    assert plan.total() == 12
    remember_variants(plan, made, refused, "trial 3")
    values = {}
    while not plan.is_complete():
        claimed = claim(plan, "random")
        fingerprint = claimed.configuration.fingerprint()
        position = [v.configuration.fingerprint() for v in made].index(fingerprint)
        value = measured(position % 4, claimed.trial.params["block"])
        values.setdefault(fingerprint, []).append(value)
        end(plan, claimed, "finished", value)
    found = ablation_in(plan)
    rows = list(dict.fromkeys(v.configuration.fingerprint() for v in made))
    comparison = compare(np.array([values[f] for f in rows]))
    for step, variant in zip(found.steps, made, strict=True):
        fingerprint = variant.configuration.fingerprint()
        assert step.mean == pytest.approx(np.mean(values[fingerprint]))
        reference = made[3] if step.kind == "winner without" else made[0]
        other = rows.index(reference.configuration.fingerprint())
        if step.kind == "base":
            assert step.difference is None
        else:
            expected = comparison.interval(rows.index(fingerprint), other)
            assert step.difference.low == pytest.approx(expected.low)
            assert step.difference.high == pytest.approx(expected.high)
    assert found.winner == "trial 3"
    assert found.steps[1].changes == {"augmentation.flip": (0.0, 0.5)}


def test_the_same_configuration_cannot_be_ablated():
    with pytest.raises(ValueError, match="nothing to ablate"):
        variants(Configuration(), Configuration())


def test_a_step_that_cannot_stand_alone_is_said_and_the_rest_is_made():
    base = Configuration.read({"training": {"epochs": 1, "batch_size": 4}})
    tree = {"training": {"epochs": 1, "batch_size": 64}, "model": {"name": "vgg", "ghost_batches": 8}}
    made, refused = variants(base, Configuration.read(tree))
    assert "base + model.ghost_batches cannot be trained alone" in " ".join(refused)
    assert "base + training.batch_size" in [variant.label for variant in made]
