"""What a space suggests, builds, accepts, lists and writes."""

import pickle
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.config import Configuration
from spaces.domain import Floats
from spaces.parameter import Parameter
from spaces.space import Space
from spaces.text import load_yaml

TEXT = """
question: Which optimizer, and how
  much of what?
command: cifar-search run --space mine
base:
  optimizer: {name: sgd, weight_decay: 1e-4, momentum: 0.8}
  schedule: {name: step, gamma: 0.5}
  training: {epochs: 7}
balance: optimizer.name
pruning_warmup: 0.25
first:
  - {optimizer.name: adam, optimizer.lr@adam: 1e-3, model.widths: small}
  - {model.dropout: 0.3}
parameters:
  # a child before its parent
  optimizer.lr@sgd: {float: [1e-3, 1.0], log: true, role: nuisance, when: {optimizer.name: sgd}}
  optimizer.name: {choice: [sgd, adam, adamw], role: scientific}
  optimizer.lr@adam: {float: [1e-5, 1e-2], log: true, role: nuisance, when: {optimizer.name: [adam, adamw]}}
  optimizer.beta1: {float: [0.8, 0.95], step: 0.05, role: nuisance, each: optimizer.name,
                    when: {optimizer.name: [adam, adamw]}}
  model.dropout: {float: [0, 0.5], step: 0.1, role: scientific}
  model.widths: {choice: {small: [32, 64], large: [64, 128]}, role: scientific}
  schedule: {choice: {constant: {name: constant}, warm: {name: cosine, warmup: 0.1}}, role: scientific}
  schedule.final: {float: [0, 0.2], role: nuisance, when: {schedule: warm}}
  model.convolutions: {int: [1, 3], role: scientific}
  training.batch_size: {int: [32, 512], log: true, role: nuisance}
  optimizer.decay_norms_and_biases: {choice: [true, false], role: scientific}
"""

ADAM = {
    "optimizer.name": "adam", "optimizer.lr@adam": 1e-3, "optimizer.beta1@adam": 0.85, "model.dropout": 0.3,
    "model.widths": "small", "schedule": "warm", "schedule.final": 0.1, "model.convolutions": 1,
    "training.batch_size": 64, "optimizer.decay_norms_and_biases": True,
}  # fmt: skip


@pytest.fixture
def space() -> Space:
    return Space.read(TEXT, "mine.yaml", "mine")


def small(*parameters: str, head: str = "") -> Space:
    lines = "".join(f"  {line}\n" for line in parameters)
    return Space.read(f"question: What?\n{head}\nparameters:\n{lines}", "small.yaml", "small")


def named(space: Space, name: str) -> Parameter:
    return next(parameter for parameter in space.parameters if parameter.name == name)


class Recorder:
    """A trial that takes the lowest or first value, and records what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, tuple[Any, ...]] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.asked[name] = (low, high, step, log)
        return low

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self.asked[name] = (low, high, step, log)
        return low

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked[name] = tuple(choices)
        return choices[0]


def test_a_file_is_read_into_its_fields(space: Space) -> None:
    assert space.name == "mine"
    assert space.question == "Which optimizer, and how much of what?"
    assert space.command == "cifar-search run --space mine"
    assert (space.cost, space.result) == ("", "")
    assert (space.balance, space.levels) == ("optimizer.name", ("sgd", "adam", "adamw"))
    assert space.pruning_warmup == 0.25
    assert space.text == TEXT
    assert space.base == Configuration.read(load_yaml(TEXT, "mine")["base"])
    assert space.first[0] == {"optimizer.name": "adam", "optimizer.lr@adam": 1e-3, "model.widths": "small"}


def test_optuna_is_asked_for_the_active_parameters_parents_first(space: Space) -> None:
    trial = Recorder()
    suggested = space.suggest(trial)
    assert trial.asked == {
        "optimizer.name": ("sgd", "adam", "adamw"),
        "optimizer.lr@sgd": (1e-3, 1.0, None, True),
        "model.dropout": (0.0, 0.5, 0.1, False),
        "model.widths": ("small", "large"),
        "schedule": ("constant", "warm"),
        "model.convolutions": (1, 3, 1, False),
        "training.batch_size": (32, 512, 1, True),
        "optimizer.decay_norms_and_biases": (True, False),
    }
    assert list(suggested) == list(trial.asked)
    assert list(suggested)[:2] == ["optimizer.name", "optimizer.lr@sgd"]


def test_what_optuna_draws_is_valid_and_snapped_to_its_step(space: Space) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(60):
        trial = study.ask()
        values = space.suggest(trial)
        assert values.keys() == trial.params.keys()
        assert values["model.dropout"] in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
        configuration = space.configure(values)
        assert configuration == space.configure(trial.params)
        assert configuration.model.dropout == values["model.dropout"]


def test_values_become_settings(space: Space) -> None:
    configuration = space.configure(ADAM)
    expected = {
        "optimizer": {"name": "adam", "lr": 1e-3, "beta1": 0.85, "weight_decay": 1e-4,
                      "decay_norms_and_biases": True},
        "schedule": {"name": "cosine", "warmup": 0.1, "final": 0.1},
        "model": {"name": "vgg", "dropout": 0.3, "widths": [32, 64], "convolutions": 1},
        "training": {"epochs": 7, "batch_size": 64},
    }  # fmt: skip
    assert configuration == Configuration.read(expected)


def test_another_variant_keeps_written_settings_that_it_has_and_takes_its_own_defaults() -> None:
    space = small(
        "optimizer.name: {choice: [sgd, adam, rmsprop], role: scientific}",
        head="base: {optimizer: {name: sgd, momentum: 0.8, weight_decay: 1e-4}}",
    )
    adam = space.configure({"optimizer.name": "adam"}).optimizer
    assert (adam.lr, adam.weight_decay, hasattr(adam, "momentum")) == (1e-3, 1e-4, False)
    rmsprop = space.configure({"optimizer.name": "rmsprop"}).optimizer
    assert (rmsprop.lr, rmsprop.weight_decay, rmsprop.momentum) == (1e-3, 1e-4, 0.8)
    assert space.configure({"optimizer.name": "sgd"}) == space.base


def test_a_section_replaces_the_base_and_its_settings_come_after_it() -> None:
    space = small(
        "schedule.warmup: {float: [0.1, 0.2], role: nuisance}",
        "schedule: {choice: {cosine: {name: cosine}, step: {name: step}}, role: scientific}",
        head="base: {schedule: {name: step, gamma: 0.5, warmup: 0.05}}",
    )
    configuration = space.configure({"schedule": "step", "schedule.warmup": 0.2})
    assert (
        configuration.schedule
        == Configuration.read({"schedule": {"name": "step", "gamma": 0.1, "warmup": 0.2}}).schedule
    )


def test_each_makes_a_parameter_for_every_level(space: Space) -> None:
    names = [parameter.name for parameter in space.parameters]
    assert [name for name in names if "beta1" in name] == ["optimizer.beta1@adam", "optimizer.beta1@adamw"]
    beta1 = named(space, "optimizer.beta1@adamw")
    assert (beta1.path, beta1.when) == ("optimizer.beta1", {"optimizer.name": ("adamw",)})
    per_number = small(
        "model.head: {choice: [0, 64], role: scientific}",
        "optimizer.lr: {float: [0.1, 1], role: nuisance, each: model.head}",
        "optimizer.nesterov: {choice: [true, false], role: scientific}",
        "model.dropout: {float: [0, 0.5], role: nuisance, each: optimizer.nesterov}",
    )
    assert [p.name for p in per_number.parameters if "@" in p.name] == [
        "optimizer.lr@0", "optimizer.lr@64", "model.dropout@true", "model.dropout@false",
    ]  # fmt: skip


def test_a_child_is_active_only_if_its_parent_is_active_and_matches() -> None:
    space = small(
        "model.activation: {choice: [relu, elu], role: scientific, when: {model.order: norm}}",
        "model.order: {choice: [neither, norm], role: scientific, when: {optimizer.name: sgd}}",
        "optimizer.name: {choice: [adam, sgd], role: scientific}",
    )
    assert [list(values) for values in space.grid()] == [
        ["optimizer.name"],
        ["optimizer.name", "model.order"],
        ["optimizer.name", "model.order", "model.activation"],
        ["optimizer.name", "model.order", "model.activation"],
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.dropuot": 0.1}, "unknown parameter 'model.dropuot': known are "),
        ({"model.dropuot": 0.1}, "(did you mean 'model.dropout'?)"),
        ({"model.dropout": None}, "model.dropout: must be a number, but got None"),
        ({"model.dropout": True}, "model.dropout: must be a number, but got True"),
        ({"model.dropout": 0.6}, "model.dropout: must be from 0 to 0.5, but got 0.6"),
        ({"model.dropout": -0.1}, "model.dropout: must be from 0 to 0.5, but got -0.1"),
        ({"model.dropout": 0.25}, "model.dropout: must be 0 to 0.5 in steps of 0.1, but got 0.25"),
        ({"model.dropout": float("nan")}, "model.dropout: must be from 0 to 0.5, but got nan"),
        ({"optimizer.lr@adam": 1.0}, "optimizer.lr@adam: must be from 1e-5 to 0.01, but got 1.0"),
        ({"optimizer.lr@sgd": 0.1}, "optimizer.lr@sgd: is active only where optimizer.name is sgd"),
        ({"schedule": "constant"}, "schedule.final: is active only where schedule is warm"),
        ({"optimizer.name": "sgd"}, "optimizer.lr@sgd: must be given, log-uniform 0.001 to 1"),
        (
            {"optimizer.name": "adma"},
            "optimizer.name: unknown choice 'adma': known are sgd, adam, adamw (did",
        ),
        ({"model.widths": [32, 64]}, "model.widths: unknown choice [32, 64]: known are small, large"),
        ({"optimizer.decay_norms_and_biases": 1}, "unknown choice 1: known are true, false"),
        ({"model.convolutions": 2.0}, "model.convolutions: must be an integer, but got 2.0"),
        ({"model.convolutions": 4}, "model.convolutions: must be from 1 to 3, but got 4"),
        ({"model.convolutions": True}, "model.convolutions: must be an integer, but got True"),
    ],
)
def test_values_that_are_not_of_the_space_are_refused(
    space: Space, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=r"^space mine: ") as error:
        space.configure({**ADAM, **change})
    assert message in str(error.value)


def test_a_missing_value_is_refused(space: Space) -> None:
    for name in set(ADAM) - {"optimizer.name", "schedule"}:
        with pytest.raises(ValueError, match=f"^space mine: {name}: must be given, "):
            space.configure({key: value for key, value in ADAM.items() if key != name})


def test_integers_in_steps() -> None:
    space = small("training.batch_size: {int: [32, 128], step: 32, role: nuisance}")
    assert [values["training.batch_size"] for values in space.grid()] == [32, 64, 96, 128]
    with pytest.raises(ValueError, match="must be integers 32 to 128 in steps of 32, but got 48"):
        space.configure({"training.batch_size": 48})


@given(
    low=st.integers(-50, 50),
    steps=st.integers(1, 40),
    step=st.sampled_from([0.1, 0.05, 0.125, 0.3, 1e-3, 0.7]),
)
def test_every_step_of_a_range_is_accepted_as_itself(low: int, steps: int, step: float) -> None:
    low_end = low * step
    space = small(f"augmentation.brightness: {{float: [{round(abs(low_end), 6)}, "
                  f"{round(abs(low_end) + steps * step, 6)}], step: {step}, role: scientific}}")  # fmt: skip
    (domain,) = [parameter.domain for parameter in space.parameters]
    points = [values["augmentation.brightness"] for values in space.grid()]
    assert len(points) == steps + 1
    for i, point in enumerate(points):
        assert domain.accept(point) == point
        assert domain.accept(points[0] + i * step) == point


def test_what_optuna_draws_from_small_steps_far_from_zero_is_accepted():
    domain = Floats(999.0, 1000.0, step=1e-6)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(200):
        drawn = domain.suggest(study.ask(), "x")
        assert abs(domain.accept(drawn) - drawn) < 1e-9
    with pytest.raises(ValueError, match="in steps of 1e-6"):
        domain.accept(999.0000005)


def test_the_grid_is_the_product_of_what_is_active() -> None:
    space = small(
        "model.order: {choice: [norm, dropout], role: scientific}",
        "model.dropout: {float: [0.1, 0.3], step: 0.1, role: scientific, when: {model.order: dropout}}",
        "model.convolutions: {int: [1, 2], role: scientific}",
    )
    expected = [{"model.order": "norm", "model.convolutions": n} for n in (1, 2)]
    expected += [
        {"model.order": "dropout", "model.dropout": p, "model.convolutions": n}
        for p, n in product((0.1, 0.2, 0.3), (1, 2))
    ]
    grid = space.grid()
    assert grid == expected
    assert len({space.configure(values).fingerprint() for values in grid}) == len(grid)


@pytest.mark.parametrize(
    ("spec", "note"),
    [
        ("{float: [1e-3, 1], log: true, role: nuisance}", "log-uniform 0.001 to 1"),
        ("{float: [0.5, 1], role: nuisance}", "uniform 0.5 to 1"),
    ],
)
def test_a_continuous_parameter_has_no_grid(spec: str, note: str) -> None:
    space = small("model.convolutions: {int: [1, 2], role: scientific}", f"optimizer.lr: {spec}")
    with pytest.raises(ValueError, match=f"^space small: optimizer.lr: has no grid, being {note}: give it"):
        space.grid()


def test_a_logarithmic_range_of_integers_has_no_grid() -> None:
    with pytest.raises(ValueError, match=r"training\.batch_size: has no grid, being log-uniform integers"):
        small("training.batch_size: {int: [32, 512], log: true, role: nuisance}").grid()


def test_a_grid_that_is_too_large_is_refused_at_once() -> None:
    space = small(
        "training.batch_size: {int: [2, 65000], role: nuisance}",
        "model.groups: {int: [1, 65000], role: nuisance}",
    )
    with pytest.raises(ValueError, match="its grid has more than 100,000 combinations"):
        space.grid()


def test_a_space_reads_back_equal_from_its_yaml(space: Space) -> None:
    back = Space.read(space.to_yaml(), "back.yaml", "mine")
    assert back == space
    assert back.fingerprint() == space.fingerprint()
    assert back.to_yaml() == space.to_yaml()


def test_a_space_travels_to_another_process(space: Space) -> None:
    space.configure(ADAM)
    copy = pickle.loads(pickle.dumps(space))
    assert copy == space
    assert copy.configure(ADAM) == space.configure(ADAM)


def test_comments_layout_and_prose_leave_the_fingerprint_alone(space: Space) -> None:
    for text in (
        "# a comment\n" + TEXT,
        TEXT.replace("question: Which", "question: Now which"),
        TEXT.replace("{optimizer.name: sgd}}", "{optimizer.name: [sgd]}}"),
        TEXT.replace("epochs: 7", "epochs: 7, batch_size: 128"),  # a default, written out
        TEXT.replace("[0, 0.5]", "[0.0, 0.50]"),
        TEXT + "cost: much\nresult: 90 %\n",
    ):
        assert text != TEXT
        assert Space.read(text, "other.yaml", "other").fingerprint() == space.fingerprint()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs: 7", "epochs: 8"),
        ("momentum: 0.8", "momentum: 0.9"),
        ("balance: optimizer.name", ""),
        ("pruning_warmup: 0.25", "pruning_warmup: 0.3"),
        ("pruning_warmup: 0.25", ""),
        ("model.dropout: 0.3}", "model.dropout: 0.4}"),
        ("  - {model.dropout: 0.3}\n", ""),
        ("[1e-3, 1.0], log: true", "[1e-3, 0.9], log: true"),
        ("[1e-3, 1.0], log: true", "[1e-3, 1.0]"),
        ("[0, 0.5], step: 0.1", "[0, 0.5], step: 0.05"),
        ("[0, 0.5], step: 0.1", "[0, 0.5]"),
        ("choice: [sgd, adam, adamw]", "choice: [adam, sgd, adamw]"),
        ("{small: [32, 64], large: [64, 128]}", "{large: [64, 128], small: [32, 64]}"),
        ("large: [64, 128]", "large: [64, 129]"),
        ("large: [64, 128]", "big: [64, 128]"),
        ("int: [1, 3], role: scientific", "int: [1, 3], role: nuisance"),
        (
            "{optimizer.name: [adam, adamw]}}\n  optimizer.beta1",
            "{optimizer.name: [adam]}}\n  optimizer.beta1",
        ),
        ("warmup: 0.1", "warmup: 0.2"),
        ("  schedule.final: {float: [0, 0.2], role: nuisance, when: {schedule: warm}}\n", ""),
    ],
)
def test_every_change_of_what_is_run_changes_the_fingerprint(space: Space, old: str, new: str) -> None:
    text = TEXT.replace(old, new)
    assert text != TEXT
    assert Space.read(text, "mine.yaml", "mine").fingerprint() != space.fingerprint()


def test_a_written_default_counts_where_another_variant_would_keep_it() -> None:
    parameter = "optimizer.name: {choice: [sgd, adam], role: scientific}"
    implicit = small(parameter, head="base: {optimizer: {name: sgd}}")
    explicit = small(parameter, head="base: {optimizer: {name: sgd, lr: 0.05}}")
    assert implicit.base == explicit.base
    assert implicit.configure({"optimizer.name": "adam"}) != explicit.configure({"optimizer.name": "adam"})
    assert implicit.fingerprint() != explicit.fingerprint()
    assert implicit.fingerprint() == small(parameter).fingerprint()


def test_rows_say_everything_in_words(space: Space) -> None:
    rows = {row.parameter: row for row in space.rows()}
    assert [*rows] == [parameter.name for parameter in space.parameters]
    lr = rows["optimizer.lr@sgd"]
    assert lr[1:] == ("log-uniform 0.001 to 1", "nuisance", "optimizer.name is sgd", "0.05")
    assert rows["optimizer.lr@adam"].condition == "optimizer.name is adam or adamw"
    assert rows["optimizer.lr@adam"].base == ""
    assert rows["model.dropout"].values == "0 to 0.5 in steps of 0.1"
    assert rows["model.widths"][1:] == ("small, large", "scientific", "", "[32, 64, 128]")
    assert rows["schedule"].base == "name: step, gamma: 0.5"
    assert rows["training.batch_size"].values == "log-uniform integers 32 to 512"
    assert rows["optimizer.decay_norms_and_biases"][1:] == ("true, false", "scientific", "", "false")


def test_the_base_as_values(space: Space) -> None:
    # the base's schedule and widths are no options of this space
    assert space.base_values == {
        "optimizer.name": "sgd", "optimizer.lr@sgd": 0.05, "model.dropout": 0.0, "model.convolutions": 2,
        "training.batch_size": 128, "optimizer.decay_norms_and_biases": False,
    }  # fmt: skip
    schedule = "schedule: {choice: {step: {name: step}, cosine: {name: cosine, final: 0}}, role: scientific}"
    assert small(schedule).base_values == {"schedule": "cosine"}


def test_another_base(space: Space) -> None:
    changed = space.with_base({"training.epochs": 3, "data.scaling": "unit"})
    assert (changed.base.training.epochs, changed.base.data.scaling) == (3, "unit")
    assert changed.configure(ADAM).training.epochs == 3
    assert changed.configure(ADAM).training.batch_size == 64
    assert changed.parameters == space.parameters
    assert changed.fingerprint() != space.fingerprint()
    assert space.base.training.epochs == 7
    assert space.with_base({"training.epochs": 7}) == space
    assert Space.read(changed.text, "changed.yaml", "mine") == changed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"training.batch_size": 64},
            "training.batch_size: varies here (by training.batch_size), so that it cannot",
        ),
        (
            {"schedule.gamma": 0.1},
            "schedule.gamma: varies here (by schedule), so that it cannot be set to 0.1",
        ),
        (
            {"optimizer": {"name": "sgd"}},
            "optimizer: varies here (by optimizer.name), so that it cannot be set",
        ),
        (
            {"training.epochs": 0},
            "base: training.epochs: input should be greater than or equal to 1, but got 0",
        ),
        ({"training.epoch": 3}, "base: training.epoch: unknown setting 'epoch': known are epochs, "),
    ],
)
def test_a_base_that_is_refused(space: Space, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^space mine: ") as error:
        space.with_base(settings)
    assert message in str(error.value)


def test_a_base_under_which_a_parameter_makes_no_sense_is_refused() -> None:
    space = small("model.normalization: {choice: [batch, group], role: scientific}")
    with pytest.raises(
        ValueError, match=r"with model\.normalization=group: .*groups must divide every width"
    ):
        space.with_base({"model.widths": [30, 60]})


def test_a_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    for name in ("mine.yaml", "mine.yml", "mine.space"):
        (tmp_path / name).write_text(TEXT)
        loaded = Space.load(str(tmp_path / name))
        assert (loaded.name, loaded.text) == ("mine", TEXT)
    (tmp_path / "broken.yaml").write_text("{a: 1, a: 2}")
    with pytest.raises(ValueError, match=r"broken\.yaml: line 1: duplicate key 'a'"):
        Space.load(str(tmp_path / "broken.yaml"))


def test_a_base_whose_variant_is_no_option_has_no_values_to_show() -> None:
    space = small(
        "optimizer.name: {choice: [sgd, rmsprop], role: scientific}",
        "optimizer.momentum: {float: [0.5, 0.9], role: nuisance}",
        head="base: {optimizer: {name: adam}}",
    )
    assert [row.base for row in space.rows()] == ["adam", ""]
    assert space.base_values == {}


def test_files_that_trials_read_are_found_in_the_base_and_in_options() -> None:
    text = """
question: Which labels?
base: {data: {noise: file, noise_file: a.csv, noise_column: worse}}
parameters:
  data.noise_file: {choice: [a.csv, b.csv], role: scientific}
  model: {choice: {old: {name: vgg}, known: {name: torchvision, weights: w.safetensors}}, role: scientific}
"""
    assert Space.read(text, "mine", "mine").files() == ["a.csv", "b.csv", "w.safetensors"]
    assert Space.load("regularization").files() == []
