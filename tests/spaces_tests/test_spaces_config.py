"""The typed configuration: round trips, bounds, and refusals that name path, rule and value."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from spaces.config import Configuration
from spaces.text import dump_yaml, load_yaml
from spaces.tree import at, put, sections

# (variant, path, lowest, highest): inclusive bounds; None where there is none
INCLUSIVE = [
    (None, "augmentation.flip", 0.0, 1.0),
    (None, "augmentation.shift", 0, 64),
    (None, "augmentation.rotation", 0.0, 180.0),
    (None, "augmentation.scale", 0.0, None),
    (None, "augmentation.shear", 0.0, 60.0),
    (None, "augmentation.brightness", 0.0, None),
    (None, "augmentation.contrast", 0.0, None),
    (None, "augmentation.saturation", 0.0, None),
    (None, "augmentation.cutout", 0.0, None),
    (None, "augmentation.erasing", 0.0, 1.0),
    (None, "augmentation.mixup", 0.0, None),
    (None, "augmentation.cutmix", 0.0, None),
    (None, "model.convolutions", 1, 8),
    (None, "model.head", 0, 65_536),
    (None, "model.groups", 1, 65_536),
    (None, "model.dropout", 0.0, None),
    (None, "model.head_dropout", 0.0, None),
    ("sgd", "optimizer.weight_decay", 0.0, None),
    ("sgd", "optimizer.clip", 0.0, None),
    ("adam", "optimizer.lookahead_steps", 0, 65_536),
    ("adam", "optimizer.lookahead_share", None, 1.0),
    ("rmsprop", "optimizer.momentum", 0.0, None),
    ("rmsprop", "optimizer.alpha", 0.0, None),
    ("adam", "optimizer.beta1", 0.0, None),
    ("adam", "optimizer.beta2", 0.0, None),
    ("muon", "optimizer.iterations", 1, 20),
    ("muon", "optimizer.momentum", 0.0, None),
    ("muon", "optimizer.beta1", 0.0, None),
    ("adadelta", "optimizer.rho", 0.0, None),
    ("polynomial", "schedule.power", None, 10.0),
    ("polynomial", "schedule.final", 0.0, 1.0),
    ("cosine", "schedule.warmup", 0.0, None),
    ("cosine", "schedule.final", 0.0, 1.0),
    ("step", "schedule.gamma", None, 1.0),
    ("cosine-restarts", "schedule.cycles", 1, 20),
    ("cosine-restarts", "schedule.growth", 1.0, 10.0),
    ("cosine-restarts", "schedule.final", 0.0, 1.0),
    ("one-cycle", "schedule.start", 0.0, 1.0),
    ("one-cycle", "schedule.final", 0.0, 1.0),
    ("triangular", "schedule.start", 0.0, 1.0),
    ("triangular", "schedule.final", 0.0, 1.0),
    ("cross-entropy", "loss.label_smoothing", 0.0, None),
    ("focal", "loss.gamma", 0.0, None),
    ("generalized-cross-entropy", "loss.q", None, 1.0),
    ("supervised-contrastive", "loss.projection", 1, 65_536),
    ("supervised-contrastive", "loss.neighbours", 1, 65_536),
    ("supervised-contrastive", "loss.head", 0, 65_536),
    ("supervised-contrastive", "loss.classifier_lr", 0.0, None),
    (None, "data.noise_rate", 0.0, 1.0),
    (None, "data.noise_seed", 0, 2**63 - 1),
    (None, "training.ema", 0.0, None),
    (None, "training.log_every", 0, 1_000_000),
    (None, "training.epochs", 1, 100_000),
    (None, "training.batch_size", 2, 65_536),
    (None, "training.patience", 0, 100_000),
]
# (variant, path, above, below): bounds that are not values themselves
EXCLUSIVE = [
    (None, "augmentation.scale", None, 1.0),
    (None, "augmentation.cutout", None, 1.0),
    (None, "model.dropout", None, 1.0),
    (None, "model.head_dropout", None, 1.0),
    ("sgd", "optimizer.lr", 0.0, None),
    ("sgd", "optimizer.momentum", 0.0, 1.0),
    ("adam", "optimizer.lookahead_share", 0.0, None),
    ("muon", "optimizer.adamw_ratio", 0.0, None),
    ("muon", "optimizer.lr", 0.0, None),
    ("muon", "optimizer.momentum", None, 1.0),
    ("muon", "optimizer.beta2", None, 1.0),
    ("adadelta", "optimizer.rho", None, 1.0),
    ("adadelta", "optimizer.eps", 0.0, None),
    ("polynomial", "schedule.power", 0.0, None),
    ("rmsprop", "optimizer.lr", 0.0, None),
    ("rmsprop", "optimizer.momentum", None, 1.0),
    ("rmsprop", "optimizer.alpha", None, 1.0),
    ("rmsprop", "optimizer.eps", 0.0, None),
    ("adam", "optimizer.lr", 0.0, None),
    ("adam", "optimizer.beta1", None, 1.0),
    ("adam", "optimizer.beta2", None, 1.0),
    ("adam", "optimizer.eps", 0.0, None),
    ("cosine", "schedule.warmup", None, 1.0),
    ("step", "schedule.gamma", 0.0, None),
    ("one-cycle", "schedule.peak", 0.0, 1.0),
    ("triangular", "schedule.peak", 0.0, 1.0),
    ("cross-entropy", "loss.label_smoothing", None, 1.0),
    ("generalized-cross-entropy", "loss.q", 0.0, None),
    ("supervised-contrastive", "loss.pretraining", 0.0, 1.0),
    ("supervised-contrastive", "loss.temperature", 0.0, None),
    (None, "training.ema", None, 1.0),
]


def tree_with(variant: str | None, path: str, value: object) -> dict[str, Any]:
    section = path.partition(".")[0]
    start = {} if variant is None else {section: {"name": variant}}
    return put(start, path, value, Configuration)


def accepts(variant: str | None, path: str, value: object) -> bool:
    try:
        configuration = Configuration.read(tree_with(variant, path, value))
    except ValueError:
        return False
    return bool(at(configuration.tree(), path) == value)


def beyond(bound: float, direction: float) -> float:
    """The next number of the bound's type in a direction."""
    return bound + int(direction) if isinstance(bound, int) else math.nextafter(bound, direction * math.inf)


@pytest.mark.parametrize(("variant", "path", "low", "high"), INCLUSIVE)
def test_inclusive_bounds(variant: str | None, path: str, low: float | None, high: float | None) -> None:
    for bound, outside in ((low, -1.0), (high, 1.0)):
        if bound is not None:
            assert accepts(variant, path, bound)
            assert accepts(variant, path, beyond(bound, -outside))
            assert not accepts(variant, path, beyond(bound, outside))


@pytest.mark.parametrize(("variant", "path", "low", "high"), EXCLUSIVE)
def test_exclusive_bounds(variant: str | None, path: str, low: float | None, high: float | None) -> None:
    for bound, outside in ((low, -1.0), (high, 1.0)):
        if bound is not None:
            assert not accepts(variant, path, bound)
            assert accepts(variant, path, beyond(bound, -outside))


def settings(model: type[BaseModel] = Configuration, path: str = "") -> Iterator[tuple[str | None, str, Any]]:
    """Every setting of every variant: variant, path and field."""
    for name, field in model.model_fields.items():
        kinds = sections(model, name)
        for variant, kind in kinds.items():
            for _, inner, inner_field in settings(kind, f"{path}{name}."):
                yield (variant if len(kinds) > 1 else None), inner, inner_field
        if not kinds:
            yield None, f"{path}{name}", field


def bounds(field: Any) -> Iterator[tuple[float, float, bool]]:
    """Of a field: each bound, the direction that leads outside, and whether the bound itself is a value."""
    for rule in field.metadata:
        for name, outside, inclusive in (
            ("ge", -1, True),
            ("gt", -1, False),
            ("le", 1, True),
            ("lt", 1, False),
        ):
            if getattr(rule, name, None) is not None:
                yield getattr(rule, name), outside, inclusive


def test_every_bound_is_kept_and_named() -> None:
    tested = 0
    for variant, path, field in settings():
        if field.annotation not in (int, float):
            continue
        for bound, outside, inclusive in bounds(field):
            value = beyond(field.annotation(bound), outside) if inclusive else bound
            with pytest.raises(ValueError, match=rf"^here: {path}: input should be .* but got ") as error:
                Configuration.read(tree_with(variant, path, value), "here")
            assert str(error.value).endswith(f"but got {field.annotation(value)!r}")
            tested += 1
    assert tested > len(INCLUSIVE)


def test_no_number_may_be_infinite_or_text_or_a_truth_value() -> None:
    numeric = [(variant, path) for variant, path, field in settings() if field.annotation in (int, float)]
    assert len(numeric) > 40
    for variant, path in numeric:
        for value in (math.inf, -math.inf, math.nan, "0.5", True, None, [0.5], {}):
            with pytest.raises(ValueError, match=rf"^here: {path}: .*") as error:
                Configuration.read(tree_with(variant, path, value), "here")
            assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (5, "must be a mapping of names to values, but got 5"),
        ({"optimzer": {}}, "optimzer: unknown setting 'optimzer': known are data, augmentation, model, "
         "optimizer, schedule, loss, training (did you mean 'optimizer'?)"),
        ({"training": {"epoch": 3}}, "training.epoch: unknown setting 'epoch': known are epochs, "),
        ({"training": {"epoch": 3}}, "(did you mean 'epochs'?)"),
        ({"optimizer": {"name": "sgd", "lrr": 1}}, "optimizer.lrr: unknown setting 'lrr': known are lr, "),
        ({"optimizer": {"name": "adam", "momentum": 0.9}}, "optimizer.momentum: unknown setting 'momentum'"),
        ({"optimizer": {"name": "addam"}}, "optimizer.name: unknown optimizer 'addam': known are sgd, "),
        ({"optimizer": {"name": "addam"}}, "(did you mean 'adam'?)"),
        ({"optimizer": {"lr": 0.1}}, "optimizer.name: must be given; known are sgd, adam, adamw, "),
        ({"optimizer": {"name": ["sgd"]}}, "optimizer.name: unknown optimizer ['sgd']: known are"),
        ({"optimizer": {"name": "sgd", "lr": -1}},
         "optimizer.lr: input should be greater than 0, but got -1"),
        ({"optimizer": 5}, "optimizer: must be a mapping of names to values"),
        ({"schedule": {"name": "step", "milestones": [0.7, 0.5]}},
         "schedule: milestones must rise, but got (0.7, 0.5)"),
        ({"schedule": {"name": "step", "milestones": [0.5, 1.5]}},
         "schedule.milestones.1: input should be less than or equal to 1, but got 1.5"),
        ({"schedule": {"name": "step", "milestones": [0.5, 0.5]}}, "schedule: milestones must rise"),
        ({"schedule": {"name": "step", "milestones": []}}, "schedule.milestones: tuple should have"),
        ({"model": {"name": "vgg", "normalization": "bach"}}, "but got 'bach' (did you mean 'batch'?)"),
        ({"model": {"name": "vgg", "widths": []}}, "model.widths: tuple should have at least 1 item"),
        ({"model": {"name": "vgg", "widths": [32, 0]}},
         "model.widths.1: input should be greater than or equal to 1, but got 0"),
        ({"model": {"name": "vgg", "widths": [32.0]}},
         "model.widths.0: input should be a valid integer, but got 32.0"),
        ({"model": {"name": "vgg", "widths": 32}}, "model.widths: must be a list, but got 32"),
        ({"model": {"name": "vgg", "normalization": "group", "groups": 5}},
         "model: groups must divide every width, but got groups=5, widths=(32, 64, 128)"),
        ({"optimizer": {"name": "sgd", "momentum": 0.0}},
         "optimizer: nesterov needs momentum > 0, but got momentum=0.0"),
        ({"training": {"epochs": 3.0}}, "training.epochs: input should be a valid integer, but got 3.0"),
        ({1: 2}, "1: keys should be strings, but got 1"),
    ],
)  # fmt: skip
def test_refusals_name_path_rule_and_value_in_one_line(tree: object, message: str) -> None:
    with pytest.raises(ValueError, match=r"^mine: ") as error:
        Configuration.read(tree, "mine")
    text = str(error.value)
    assert message in text
    assert "\n" not in text


def test_sgd_without_momentum_is_valid_without_nesterov() -> None:
    tree = {"optimizer": {"name": "sgd", "momentum": 0.0, "nesterov": False}}
    assert Configuration.read(tree).optimizer.momentum == 0.0


def some_value(field: Any) -> object:
    """Another value than the default that is within the bounds in use."""
    if field.annotation is bool:
        return not field.default
    if field.annotation is int:
        return field.default + 1
    return field.default * 0.75 + 0.01 if field.annotation is float else field.default


def test_every_setting_survives_yaml_unchanged() -> None:
    survived, refused = 0, 0
    for variant, path, field in settings():
        try:
            configuration = Configuration.read(tree_with(variant, path, some_value(field)))
        except ValueError:  # by a rule between settings
            refused += 1
            continue
        back = Configuration.read(load_yaml(dump_yaml(configuration.tree()), "dump"))
        assert back == configuration, path
        assert back.fingerprint() == configuration.fingerprint()
        survived += 1
    assert survived > 5 * refused


@given(
    lr=st.floats(1e-12, 1e3),
    decay=st.floats(0, 1),
    widths=st.lists(st.integers(1, 4096), min_size=1, max_size=6),
)
def test_a_configuration_survives_yaml_unchanged(lr: float, decay: float, widths: list[int]) -> None:
    tree = {
        "optimizer": {"name": "adamw", "lr": lr, "weight_decay": decay},
        "model": {"name": "vgg", "widths": widths},
    }
    configuration = Configuration.read(tree)
    assert Configuration.read(load_yaml(dump_yaml(configuration.tree()), "dump")) == configuration


def test_fingerprints_differ_exactly_when_settings_do() -> None:
    default = Configuration()
    written_out = Configuration.read(default.tree())
    assert written_out.fingerprint() == default.fingerprint()
    assert Configuration.read({"training": {"epochs": 31}}).fingerprint() != default.fingerprint()
    assert Configuration.read({"optimizer": {"name": "sgd", "lr": 1}}).fingerprint() == (
        Configuration.read({"optimizer": {"name": "sgd", "lr": 1.0}}).fingerprint()
    )


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Configuration().training.epochs = 3


def test_naming_another_variant_keeps_the_written_settings_that_it_has() -> None:
    tree = {"optimizer": {"name": "sgd", "lr": 0.3, "momentum": 0.5, "weight_decay": 1e-4}}
    changed = put(tree, "optimizer.name", "adam", Configuration)
    assert changed == {"optimizer": {"name": "adam", "lr": 0.3, "weight_decay": 1e-4}}
    assert tree["optimizer"]["name"] == "sgd"
    assert put({}, "optimizer.name", "adam", Configuration) == {"optimizer": {"name": "adam"}}


def test_putting_a_setting_of_an_absent_section_names_its_default_variant() -> None:
    assert put({}, "schedule.final", 0.1, Configuration) == {"schedule": {"name": "cosine", "final": 0.1}}
    assert put({}, "training.epochs", 3, Configuration) == {"training": {"epochs": 3}}


def test_reading_a_path_that_is_not_there_is_a_key_error() -> None:
    tree = Configuration().tree()
    assert at(tree, "optimizer.lr") == 0.05
    for path in ("optimizer.beta1", "nothing.lr", "optimizer.lr.more"):
        with pytest.raises(KeyError):
            at(tree, path)
