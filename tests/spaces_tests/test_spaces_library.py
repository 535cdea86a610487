"""The built-in spaces: what they promise in their headers, and that all they suggest is valid."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from spaces.catalog import built_in
from spaces.domain import Choice
from spaces.space import Space

NAMES = sorted(built_in())
COMPARISONS = {
    "optimizer": ("sgd", "rmsprop", "adam", "adamw", "nadam", "adamax"),
    "schedule": ("constant", "step", "cosine", "warmup-cosine", "cosine-restarts", "one-cycle", "triangular"),
    "ordering": ("norm-dropout", "dropout-norm", "norm", "dropout", "neither"),
    "normalization": ("batch", "layer", "instance", "group", "none"),
}
FREE = {"regularization", "augmentation", "full"}
LADDERS = {"alexnet", "convnet-dropout", "vgg-regularization", "transfer", "activation"}
"""Spaces that run each entry of their grid, at one learning rate, as the reports did that they repeat."""


@pytest.fixture(params=NAMES)
def space(request: pytest.FixtureRequest) -> Space:
    return Space.load(request.param)


def header(space: Space) -> dict[str, str]:
    """The comment above the command, by its first words: Scientific, Nuisance, Fixed."""
    above = space.text[: space.text.index("\ncommand:")]
    comments = " ".join(line.removeprefix("#") for line in above.splitlines() if line.startswith("#"))
    parts = re.split(r"(Scientific|Nuisance|Fixed) ", comments)
    return {role: " ".join(text.split()) for role, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_the_spaces_are_there() -> None:
    assert set(NAMES) >= set(COMPARISONS) | FREE | LADDERS


def test_a_file_opens_with_its_question_and_says_what_varies(space: Space) -> None:
    assert space.text.startswith(f"question: {space.question}\n")
    assert space.question.endswith("?")
    assert built_in()[space.name] == space.question
    said = header(space)
    assert list(said) == ["Scientific", "Nuisance", "Fixed"]
    assert all(said.values())
    roles = {parameter.role for parameter in space.parameters}
    tuned = not said["Nuisance"].startswith("none")
    assert roles == ({"scientific", "nuisance"} if tuned else {"scientific"})
    assert f"{space.base.training.epochs} epochs" in said["Fixed"]


def test_the_command_runs_this_space_with_as_many_trials_as_its_cost_counts(space: Space) -> None:
    words = shlex.split(space.command)
    assert words[:4] == ["cifar-search", "run", "--space", space.name]
    if space.name in LADDERS:
        repeat = int(words[words.index("--repeat") + 1]) if "--repeat" in words else 1
        runs = len(space.grid()) * repeat
        assert words[words.index("--sampler") + 1] == "grid"
        assert re.search(rf"^{runs * space.base.training.epochs:,} epochs\b", space.cost)
        return
    trials = int(words[words.index("--trials") + 1])
    epochs = trials * space.base.training.epochs
    assert f"{epochs:,} epochs ({trials} trials of {space.base.training.epochs}" in space.cost
    assert trials % max(1, len(space.levels)) == 0
    assert space.result


def test_whatever_optuna_draws_is_valid(space: Space) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = set()
    for _ in range(40):
        trial = study.ask()
        values = space.suggest(trial)
        configuration = space.configure(values)
        assert space.configure(trial.params) == configuration
        assert configuration.training.epochs == space.base.training.epochs
        drawn.add(configuration.fingerprint())
        study.tell(trial, 0.5)
    assert len(drawn) == 40 or (space.name in LADDERS and 2 * len(drawn) > len(space.grid()))


def test_known_configurations_can_be_enqueued(space: Space) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for entry in space.first:
        study.enqueue_trial(entry)
        trial = study.ask()
        values = space.suggest(trial)
        assert {name: values[name] for name in entry} == entry
        space.configure(values)


def test_a_space_reads_back_equal(space: Space) -> None:
    assert Space.read(space.to_yaml(), "back.yaml", space.name) == space
    assert Space.read(space.text, "copy.yaml", "copy").fingerprint() == space.fingerprint()


def test_flips_can_be_fixed_off(space: Space) -> None:
    fixed = space.without({"augmentation.flip": 0.0, "augmentation.alternating_flip": False})
    assert "augmentation.flip" not in {parameter.path for parameter in fixed.parameters}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=2))
    for _ in range(20):
        assert fixed.configure(fixed.suggest(study.ask())).augmentation.flip == 0.0
    for parameter in fixed.parameters:
        if isinstance(parameter.domain, Choice) and parameter.path == "augmentation":
            assert not any("flip" in str(option) for option in parameter.domain.options)
    assert fixed.levels == space.levels


@pytest.mark.parametrize("name", sorted(COMPARISONS))
def test_a_comparison_is_balanced_with_a_learning_rate_for_every_level(name: str) -> None:
    space = Space.load(name)
    assert space.levels == COMPARISONS[name]
    for level in space.levels:
        rates = [
            p for p in space.parameters if p.path == "optimizer.lr" and level in p.when[str(space.balance)]
        ]
        assert [parameter.when for parameter in rates] == [{space.balance: (level,)}]
        assert rates[0].role == "nuisance"


@pytest.mark.parametrize("name", sorted(FREE))
def test_the_other_spaces_search_freely(name: str) -> None:
    space = Space.load(name)
    assert (space.balance, space.levels) == (None, ())
    assert "optimizer.lr" in {
        parameter.path for parameter in space.parameters if parameter.role == "nuisance"
    }


def test_questions_about_slow_starters_ask_for_late_pruning() -> None:
    asked = {name: Space.load(name).pruning_warmup for name in NAMES}
    assert asked["schedule"] == 1.0
    for name in ("regularization", "ordering", "augmentation", "full"):
        assert asked[name] == 0.5


def test_in_the_ordering_dropout_is_tuned_exactly_where_it_acts() -> None:
    space = Space.load("ordering")
    levels = [level for p in space.parameters if p.path == "model.dropout" for level in p.when["model.order"]]
    assert levels == ["norm-dropout", "dropout-norm", "dropout"]
    assert space.base.model.dropout == 0.0


def test_momentum_of_the_base_does_not_slip_into_other_optimizers() -> None:
    for name in ("optimizer", "full"):
        space = Space.load(name)
        rmsprop = space.build(space.complete({"optimizer.name": "rmsprop"}))
        assert rmsprop.optimizer.momentum == 0.0


def test_no_line_of_the_library_is_too_long_to_copy() -> None:
    for name in NAMES:
        assert max(map(len, Space.load(name).text.splitlines())) <= 110


def test_spaces_import_neither_torch_nor_optuna() -> None:
    code = (
        "import sys; from spaces.space import Space, built_in; [Space.load(n) for n in built_in()]; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'optuna', 'numpy', 'studies', 'search')))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
