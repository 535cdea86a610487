"""Space files that are damaged at random: read as they are written, or refused in one line."""

from random import Random
from typing import Any

import pytest

from spaces.catalog import built_in, find
from spaces.space import Space
from spaces.text import dump_yaml, load_yaml

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
