"""A preset: one parameter whose options each put several settings together, as the steps of a ladder do."""

import pytest

from spaces.space import Space

LADDER = """
question: Which step helps?
base:
  model: {name: vgg, dropout: 0.0}
  optimizer: {name: sgd, weight_decay: 0.0}
parameters:
  preset:
    role: scientific
    choice:
      baseline: {}
      dropout: {model.dropout: 0.2}
      weight decay: {optimizer.weight_decay: 1e-3}
      augmentation: {augmentation: {flip: 0.5, shift: 4}}
      all: {model.dropout: 0.3, optimizer.weight_decay: 1e-3, augmentation: {flip: 0.5, shift: 4}}
"""


def ladder(old: str = "", new: str = "") -> Space:
    return Space.read(LADDER.replace(old, new) if old else LADDER, "ladder.yaml", "ladder")


def test_each_option_puts_its_settings_onto_the_base():
    built = {point["preset"]: ladder().configure(point) for point in ladder().grid()}
    assert list(built) == ["baseline", "dropout", "weight decay", "augmentation", "all"]
    assert built["baseline"] == ladder().base
    assert built["dropout"].model.dropout == 0.2
    assert built["dropout"].optimizer.weight_decay == 0
    assert built["augmentation"].augmentation.shift == 4
    assert (built["all"].model.dropout, built["all"].augmentation.flip) == (0.3, 0.5)


def test_the_base_is_the_option_that_changes_nothing():
    space = ladder()
    assert space.base_value(space.parameters[0]) == "baseline"


def test_it_reads_back_from_its_own_yaml_and_has_a_fingerprint_of_its_own():
    space = ladder()
    assert Space.read(space.to_yaml(), "again", "ladder") == space
    assert ladder("0.2", "0.25").fingerprint() != space.fingerprint()


def test_a_setting_fixed_off_is_off_in_every_option():
    flipless = ladder().without({"augmentation.flip": 0.0})
    for point in flipless.grid():
        assert flipless.configure(point).augmentation.flip == 0
    assert flipless.configure({"preset": "all"}).augmentation.shift == 4


def test_options_that_become_equal_are_one():
    flips = ladder("{flip: 0.5, shift: 4}}\n      all", "{flip: 0.5}}\n      all").without(
        {"augmentation.flip": 0.0}
    )
    assert [point["preset"] for point in flips.grid()] == ["baseline", "dropout", "weight decay", "all"]


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("{model.dropout: 0.2}", "{model.dropuot: 0.2}", "model.dropuot"),
        ("{model.dropout: 0.2}", "{model.dropout: 2}", "model.dropout"),
        ("{model.dropout: 0.2}", "0.2", "each with dotted paths"),
    ],
)
def test_an_option_that_makes_no_configuration_is_refused(old, new, part):
    with pytest.raises(ValueError, match=r"ladder.yaml: parameters.*preset") as error:
        ladder(old, new)
    assert part in str(error.value)
