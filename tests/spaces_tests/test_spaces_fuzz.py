"""Spaces and configurations that are damaged at random: read as they are written, or refused in one line."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.catalog import built_in, find
from spaces.config import Configuration
from spaces.space import Space
from spaces.text import dump_yaml, load_yaml
from spaces.tree import sections

NUMBERS: list[Any] = [True, -1, 0, 10**30, 0.5, 1e300, float("inf"), float("nan")]
NAMES = ["", "sgd", "optimizer.name", "@", "a@b@c", "two\nlines", "\u2028", "each", "when"]
TREES: list[Any] = [
    None,
    [],
    {},
    [[]],
    [1, 0],
    ["a\nb", "c"],
    [{"optimizer.name": "sgd"}],
    {"a\nb": 0, "c": 1},
]
JUNK = [*NUMBERS, *NAMES, *TREES, {"name": []}, {"choice": [1, 2], "role": "nuisance"}]


def damaged(node: Any, random: Random) -> Any:
    """The tree with one of its nodes replaced, doubled under another key, or removed."""
    if not isinstance(node, (dict, list)) or not node or random.random() < 0.15:
        return random.choice(JUNK)
    if isinstance(node, list):
        place = random.randrange(len(node))
        return [*node[:place], damaged(node[place], random), *node[place + random.randrange(2) :]]
    key = random.choice(list(node))
    rest = {k: v for k, v in node.items() if k != key}
    if random.random() < 0.2:
        return rest
    name = random.choice(NAMES) if random.random() < 0.2 else key
    return {**rest, name: damaged(node[key], random)}


def read_or_refuse(text: str) -> Space | None:
    """The space, or None where it is refused as it should be."""
    try:
        return Space.read(text, "damaged.yaml", "damaged")
    except ValueError as error:
        message = str(error)
    assert message.startswith("damaged.yaml: ")
    assert len(message.splitlines()) == 1
    return None


@pytest.mark.parametrize("name", sorted(built_in()))
def test_a_damaged_space_is_valid_or_refused_in_one_line(name: str) -> None:
    random = Random(name)
    tree = load_yaml(find(name)[0], name)
    for _ in range(40):
        space = read_or_refuse(dump_yaml(damaged(tree, random)))
        if space:
            assert Space.read(space.to_yaml(), "back.yaml", space.name) == space
            assert len(space.rows()) == len(space.parameters)


@pytest.mark.parametrize("name", sorted(built_in()))
def test_damaged_text_is_valid_or_refused_in_one_line(name: str) -> None:
    random = Random(name)
    text = find(name)[0]
    junk = ["", ":", "{", "]", "\t", "\n", "&a ", "*a", "!!x ", '"', "\0", "1e3", "- ", "?", "#"]
    for _ in range(20):
        place = random.randrange(len(text))
        read_or_refuse(text[:place] + random.choice(junk) + text[place + random.randrange(3) :])


@pytest.mark.parametrize("name", sorted(built_in()))
def test_damaged_bytes_are_valid_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    damage_bytes(name, tmp_path / "damaged.yaml", 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(built_in()))
def test_many_damaged_bytes(name: str, tmp_path: Path) -> None:
    damage_bytes(name, tmp_path / "damaged.yaml", 100)


def damage_bytes(name: str, path: Path, times: int) -> None:
    """Change, add or take out a few bytes of a library file, so many times over."""
    random = Random(name)
    content = find(name)[0].encode()
    for _ in range(times):
        start = random.randrange(len(content))
        path.write_bytes(content[:start] + random.randbytes(random.randrange(4)) + content[start + 2 :])
        message = f"{path}: "
        try:
            Space.load(str(path))
        except ValueError as error:
            message = str(error)
        assert message.startswith(f"{path}: ")
        assert len(message.splitlines()) == 1


TREES_OF_VARIANTS = [
    Configuration.read({section: {"name": name}}).tree()
    for section in ("model", "optimizer", "schedule", "loss")
    for name in sections(Configuration, section)
    if name != "supervised-contrastive"
]
LEAVES = st.sampled_from(
    [*JUNK, 10**400, 2**63, -(2**63), -0.5, 1.5, 0, 1, 64, "adam", "off", "\x1b[31m", [8, "a"]]
)


def check_leaf(tree: dict[str, Any], data: st.DataObject) -> None:
    """A setting that is changed is refused, or is there unchanged."""
    section = data.draw(st.sampled_from(sorted(tree)))
    setting = data.draw(st.sampled_from(sorted(tree[section])))
    value = data.draw(LEAVES)
    changed = {**tree, section: {**tree[section], setting: value}}
    message = ""
    try:
        read = Configuration.read(changed, "damaged").tree()[section][setting]
    except ValueError as error:
        message = str(error)
    if message:
        assert message.startswith("damaged: ")
        assert message.isprintable()
        return
    written = float(value) if isinstance(read, float) and type(value) is int else value
    assert (read, isinstance(read, bool)) == (written, isinstance(value, bool)), (section, setting, value)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(TREES_OF_VARIANTS), st.data())
def test_a_changed_setting_is_there_unchanged_or_refused(tree: dict[str, Any], data: st.DataObject) -> None:
    check_leaf(tree, data)


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None)
@given(st.sampled_from(TREES_OF_VARIANTS), st.data())
def test_many_changed_settings(tree: dict[str, Any], data: st.DataObject) -> None:
    check_leaf(tree, data)
