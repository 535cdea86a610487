"""YAML in and out, digests, and the wording for unknown names."""

import hashlib
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spaces.text import brief, digest, dump_yaml, load_yaml, nearest, short_number, unknown, within


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("010", 10),
        ("-7", -7),
        ("true", True),
        ("False", False),
        ("off", "off"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("'1e-3'", "1e-3"),
        ("~", None),
        (".inf", math.inf),
        ("-.inf", -math.inf),
    ],
)
def test_scalars_are_read_as_yaml_1_2_reads_them(text: str, value: object) -> None:
    read = load_yaml(f"key: {text}", "f.yaml")["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml: line 3: duplicate key 'a'"),
        ("x:\n  a: {b: 1, b: 2}", "f.yaml: line 2: duplicate key 'b'"),
        ("a: &x 1", "f.yaml: line 1: anchors and aliases are not allowed"),
        ("a: 1\nb: *x", "f.yaml: line 2: anchors and aliases are not allowed"),
        ("a: !!str 1", "f.yaml: line 1: tags are not allowed, but got 'tag:yaml.org,2002:str'"),
        ("!!python/object/apply:os.system [ls]", "f.yaml: line 1: tags are not allowed"),
        ("a: 1\n---\nb: 1", "f.yaml: line 2: expected a single document in the stream"),
        ("a: [1", "f.yaml: line 1: expected ',' or ']'"),
        ("a: 1\n\tb: 2", "f.yaml: line 2: "),
        ("a: b: c", "f.yaml: line 1: mapping values are not allowed here"),
        ("a: 1\nb: \x00", "f.yaml: line 2: character 0 is not allowed"),
        ("? [1, 2]\n: 3", "f.yaml: line 1: a key must be text or a number"),
        ("[" * 5000, "f.yaml: line 1: nested more than 50 levels deep"),
        ("a: " + "9" * 5000, "f.yaml: line 1: a number has too many digits"),
    ],
)
def test_what_is_not_plain_data_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^f\.yaml: line") as error:
        load_yaml(text, "f.yaml")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_alias_bomb_is_refused_before_it_expands() -> None:
    bomb = "a: &a [x]\n" + "".join(f"k{i}: &k{i} [*a, *a, *a]\n" for i in range(50))
    with pytest.raises(ValueError, match="anchors and aliases"):
        load_yaml(bomb, "bomb.yaml")


def test_an_empty_document_is_none() -> None:
    assert load_yaml("# nothing\n", "f.yaml") is None


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]))
    | st.sampled_from(
        ["1e-3", "off", "null", "0x1", "1_0", "<<", "=", ".inf", "- a", "a: b", "#", "", " ", "~"]
    )
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(categories=["L"])), inner)
)


@given(TREES)
def test_what_is_written_reads_back_identically(tree: object) -> None:
    back = load_yaml(dump_yaml({"tree": tree}), "dump")["tree"]
    assert back == tree
    assert repr(back) == repr(tree)  # tells 1 from 1.0 and True, and keeps the order of keys


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_other_yaml_readers_read_our_floats_as_floats(number: float) -> None:
    assert yaml.safe_load(dump_yaml([number])) == [number]


def test_short_lists_are_written_on_one_line_and_tuples_as_lists() -> None:
    assert dump_yaml({"widths": (32, 64), "empty": []}) == "widths: [32, 64]\nempty: []\n"
    assert dump_yaml({"rows": [[1], [2]]}) == "rows:\n- [1]\n- [2]\n"


def test_a_list_used_twice_is_written_twice() -> None:
    shared = [1, 2]
    assert load_yaml(dump_yaml({"a": shared, "b": shared}), "dump") == {"a": [1, 2], "b": [1, 2]}


def test_a_digest_is_the_hash_of_canonical_json() -> None:
    expected = hashlib.sha256(b'{"a":[1,2.5,null],"b":"x"}').hexdigest()[:16]
    assert digest({"b": "x", "a": [1, 2.5, None]}) == expected
    assert digest({"a": (1, 2.5, None), "b": "x"}) == expected


def test_a_digest_tells_apart() -> None:
    trees: list[object] = [
        {"a": 1},
        {"a": 1.0},
        {"a": "1"},
        {"a": True},
        {"a": None},
        {"b": 1},
        [1, 2],
        [2, 1],
    ]
    assert len({digest(tree) for tree in trees}) == len(trees)


def test_unknown_names_list_the_known_ones_and_the_nearest() -> None:
    assert nearest("cosin", ["constant", "cosine"]) == " (did you mean 'cosine'?)"
    assert nearest("zzz", ["constant", "cosine"]) == ""
    known = ["grid", "random", "tpe"]
    message = "unknown sampler 'tpee': known are grid, random, tpe (did you mean 'tpe'?)"
    assert str(unknown("sampler", "tpee", known)) == message
    assert str(unknown("sampler", 5, [])) == "unknown sampler 5: known are none"


def test_a_long_value_is_cut_and_stays_on_one_line() -> None:
    assert brief("a\nb") == r"'a\nb'"
    assert len(brief(list(range(1000)))) == 80


@pytest.mark.parametrize(
    ("number", "shown"),
    [(1e-4, "1e-4"), (1.5e-5, "1.5e-5"), (0.05, "0.05"), (0.0, "0"), (-2e-7, "-2e-7"), (512, "512"),
     (10_000_000, "10000000"), (2.5e10, "2.5e10"), (0.30000000000000004, "0.3")],
)  # fmt: skip
def test_numbers_are_shown_as_a_person_writes_them(number: float, shown: str) -> None:
    assert short_number(number) == shown


def test_places_stand_in_front_of_a_complaint() -> None:
    with pytest.raises(ValueError, match=r"^a: b: wrong$"), within("a"), within("b"):
        raise ValueError("wrong")
