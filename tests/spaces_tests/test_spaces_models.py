"""Sections of networks: what they refuse when read, with the reason, and that every setting is documented."""

import pytest

from spaces.config import Configuration
from spaces.text import dump_yaml, load_yaml
from spaces.tree import sections

NETWORKS = sections(Configuration, "model")


def read(**model: object) -> Configuration:
    return Configuration.read({"model": model}, "mine")


def test_every_network_of_the_catalogue_has_a_section():
    assert list(NETWORKS) == [
        "tutorial", "lenet", "convnet", "alexnet", "vgg", "resnet", "resnet9", "wide-resnet", "airbench",
        "torchvision",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_every_setting_of_a_network_is_documented_and_its_name_comes_first(name):
    section = NETWORKS[name]
    undocumented = [field for field, info in section.model_fields.items() if not info.description]
    assert undocumented == ["name"]
    assert next(iter(read(name=name).tree()["model"])) == "name"
    assert section.__doc__


@pytest.mark.parametrize("name", [name for name in NETWORKS if "dropout" in NETWORKS[name].model_fields])
def test_dropout_is_one_rate_or_one_for_each_block(name):
    blocks = read(name=name).model.blocks
    rates = [round(0.1 * (block + 1), 1) for block in range(blocks)]
    configuration = read(name=name, dropout=rates)
    assert configuration.model.dropout == tuple(rates)
    assert configuration.tree()["model"]["dropout"] == rates
    assert Configuration.read(load_yaml(dump_yaml(configuration.tree()), "dump")) == configuration
    with pytest.raises(
        ValueError, match=rf"^mine: model: dropout must list a rate for each of the {blocks} "
    ):
        read(name=name, dropout=[*rates, 0.1])
    for wrong in (1.0, -0.1, [0.1] * (blocks - 1) + [1.0], [], "0.1", True, None, float("nan")):
        with pytest.raises(ValueError, match=r"^mine: model\.dropout: must be a rate in \[0, 1\), or a list"):
            read(name=name, dropout=wrong)


@pytest.mark.parametrize(
    "name", [name for name in NETWORKS if "ghost_batches" in NETWORKS[name].model_fields]
)
def test_ghost_batches_need_batch_normalization(name):
    assert read(name=name, normalization="batch", ghost_batches=2).model.ghost_batches == 2
    with pytest.raises(ValueError, match=r"^mine: model: ghost_batches cut up batch normalization .*layer$"):
        read(name=name, normalization="layer", ghost_batches=2)


def test_a_part_of_the_batch_has_two_images_or_more():
    tree = {"model": {"name": "vgg", "ghost_batches": 16}, "training": {"batch_size": 31}}
    with pytest.raises(ValueError, match=r"needs two images or more.*ghost_batches=16.*batch_size=31$"):
        Configuration.read(tree, "mine")
    assert Configuration.read(tree | {"training": {"batch_size": 32}}).training.batch_size == 32


@pytest.mark.parametrize(
    ("name", "setting"),
    [("airbench", "normalization"), ("torchvision", "activation"), ("wide-resnet", "zero_init_last_norm"),
     ("resnet", "order"), ("tutorial", "widths")],
)  # fmt: skip
def test_a_network_takes_only_settings_that_it_makes_sense_with(name, setting):
    with pytest.raises(ValueError, match=rf"^mine: model\.{setting}: unknown setting '{setting}': known are"):
        read(name=name, **{setting: "batch"})
