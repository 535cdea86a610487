"""Taking settings out of a space: parameters, options, conditions and known configurations follow."""

from typing import Any

import pytest

from spaces.domain import Choice
from spaces.space import Space

AUGMENTATION = """
  augmentation:
    choice:
      none: {}
      flip: {flip: 0.5}
      shift: {shift: 2}
      flip+shift: {flip: 0.5, shift: 2}
      flip+cutout: {flip: 0.5, cutout: 0.5}
    role: scientific
  optimizer.lr: {float: [0.1, 1], role: nuisance}
"""


def read(parameters: str, head: str = "") -> Space:
    return Space.read(f"question: What?\n{head}\nparameters:\n{parameters}", "mine.yaml", "mine")


def names(space: Space) -> list[str]:
    return [parameter.name for parameter in space.parameters]


def options(space: Space, name: str) -> dict[Any, Any]:
    domain = next(parameter.domain for parameter in space.parameters if parameter.name == name)
    assert isinstance(domain, Choice)
    return {option: domain.setting(option) for option in domain.options}


def test_a_parameter_is_fixed_in_the_base() -> None:
    space = read(
        """
  augmentation.flip: {choice: [0.0, 0.5], role: scientific}
  augmentation.shift: {int: [0, 4], role: scientific}
""",
        head="first: [{augmentation.flip: 0.5, augmentation.shift: 2}, {augmentation.flip: 0.5}]",
    )
    fixed = space.without({"augmentation.flip": 0.0})
    assert names(fixed) == ["augmentation.shift"]
    assert fixed.first == ({"augmentation.shift": 2},)
    assert fixed.configure({"augmentation.shift": 1}).augmentation.flip == 0.0
    assert fixed.base.augmentation.flip == 0.0
    assert Space.read(fixed.text, "fixed.yaml", "mine") == fixed


def test_a_base_without_the_parameter_is_fixed_too() -> None:
    space = read(
        "  optimizer.lr: {float: [0.1, 1], role: nuisance}\n", head="base: {augmentation: {flip: 0.5}}"
    )
    assert space.without({"augmentation.flip": 0}).base.augmentation.flip == 0.0


def test_options_of_a_section_are_fixed_and_those_with_true_names_stay() -> None:
    fixed = read(AUGMENTATION).without({"augmentation.flip": 0.0})
    assert options(fixed, "augmentation") == {
        "none": {},
        "shift": {"shift": 2},
        "flip+cutout": {"flip": 0.0, "cutout": 0.5},
    }
    for values in ("none", "shift", "flip+cutout"):
        assert fixed.configure({"augmentation": values, "optimizer.lr": 0.1}).augmentation.flip == 0.0


def test_the_option_that_was_like_that_before_stays_whatever_the_order() -> None:
    parameters = AUGMENTATION.replace("      none: {}\n", "").replace(
        "    role", "      none: {}\n    role", 1
    )
    fixed = read(parameters).without({"augmentation.flip": 0.0})
    assert list(options(fixed, "augmentation")) == ["shift", "flip+cutout", "none"]


def test_known_configurations_take_the_option_that_stands_for_theirs() -> None:
    first = (
        "first: [{augmentation: flip+shift, optimizer.lr: 0.5}, {augmentation: flip}, {augmentation: none}]"
    )
    fixed = read(AUGMENTATION, head=first).without({"augmentation.flip": 0.0})
    assert fixed.first == ({"augmentation": "shift", "optimizer.lr": 0.5}, {"augmentation": "none"})


def test_conditions_follow_the_options_that_stay() -> None:
    space = read(
        AUGMENTATION
        + """
  augmentation.padding: {choice: [zero, edge], role: scientific, when: {augmentation: [shift, flip+shift]}}
  model.dropout: {float: [0, 0.5], role: scientific, when: {augmentation: flip}}
  model.head_dropout: {float: [0, 0.5], role: scientific, when: {augmentation.padding: zero}}
""",
        head="first: [{augmentation: flip, model.dropout: 0.1, optimizer.lr: 0.5}]",
    )
    fixed = space.without({"augmentation.flip": 0.0})
    assert names(fixed) == ["augmentation", "optimizer.lr", "augmentation.padding", "model.head_dropout"]
    assert fixed.parameters[2].when == {"augmentation": ("shift",)}
    assert fixed.first == ({"augmentation": "none", "optimizer.lr": 0.5},)


def test_a_choice_with_one_option_left_goes_into_the_base() -> None:
    parameters = """
  augmentation: {choice: {none: {}, flip: {flip: 0.5}}, role: scientific}
  optimizer.lr: {float: [0.1, 1], role: nuisance, each: augmentation}
"""
    fixed = read(parameters, head="balance: augmentation\nbase: {augmentation: {shift: 2}}").without(
        {"augmentation.flip": 0.0}
    )
    assert names(fixed) == ["optimizer.lr@none"]
    assert fixed.parameters[0].when == {}
    assert fixed.balance is None
    assert (fixed.base.augmentation.flip, fixed.base.augmentation.shift) == (0.0, 0)


CHAIN = """
  optimizer.name: {choice: [sgd, adam], role: scientific}
  model.order: {choice: [norm, dropout, neither], role: scientific, when: {optimizer.name: sgd}}
  model.dropout: {float: [0, 0.5], role: nuisance, when: {model.order: dropout}}
  optimizer.lr: {float: [0.1, 1], role: nuisance, each: model.order}
  model.activation: {choice: [relu, elu], role: scientific, when: {optimizer.name: adam}}
"""


def test_children_of_the_fixed_option_inherit_its_conditions_and_the_others_go() -> None:
    fixed = read(CHAIN).without({"model.order": "dropout"})
    assert {parameter.name: parameter.when for parameter in fixed.parameters} == {
        "optimizer.name": {},
        "model.dropout": {"optimizer.name": ("sgd",)},
        "optimizer.lr@dropout": {"optimizer.name": ("sgd",)},
        "model.activation": {"optimizer.name": ("adam",)},
    }
    assert fixed.base.model.order == "dropout"


def test_children_of_children_go_too() -> None:
    assert names(read(CHAIN).without({"optimizer.name": "adam"})) == ["model.activation"]
    fixed = read(CHAIN).without({"model.order": "norm-dropout"})  # an order that is no option
    assert names(fixed) == ["optimizer.name", "model.activation"]


def test_a_section_whose_options_lack_the_setting_is_left_alone() -> None:
    space = read(
        "  schedule: {choice: {step: {name: step}, cosine: {name: cosine, final: 0.1}}, role: scientific}\n",
        head="base: {schedule: {name: cosine}}",
    )
    fixed = space.without({"schedule.final": 0.2})
    assert options(fixed, "schedule") == {
        "step": {"name": "step"},
        "cosine": {"name": "cosine", "final": 0.2},
    }


def test_several_settings_at_once() -> None:
    fixed = read(AUGMENTATION).without({"augmentation.flip": 0.0, "optimizer.lr": 0.3})
    assert names(fixed) == ["augmentation"]
    assert fixed.base.optimizer.lr == 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"augmentation": {}, "optimizer.lr": 0.1},
            "nothing is left to vary without augmentation, optimizer.lr",
        ),
        (
            {"optimizer": {"name": "sgd"}},
            "optimizer: optimizer.lr varies within it; fix its settings one by one",
        ),
        (
            {"augmentation.flip": 2.0},
            "augmentation.flip: input should be less than or equal to 1, but got 2.0",
        ),
        ({"augmentation.flop": 0.0}, "augmentation.flop: unknown setting 'flop': known are flip, "),
    ],
)
def test_what_cannot_be_fixed_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^space mine: ") as error:
        read(AUGMENTATION).without(settings)
    assert message in str(error.value)
