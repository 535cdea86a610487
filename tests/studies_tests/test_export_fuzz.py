"""Exports that are damaged at random: refused in one line, or read exactly as they are written."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_studies import FREE, make_study, run_all

from spaces.text import dump_yaml, load_yaml
from studies.export import ExportedConfiguration, of_best, read_export, write_export
from studies.storage import open_storage

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**6, 2**63, 10**400, -0.5, 0.25, 1.5, 1e300, float("inf"), float("nan")]),
    st.sampled_from(["", "fp32", "adam", "1", "off", "two\nlines", "\u202e", "[red]x", "\x1b[31m", "d", "s"]),
    st.sampled_from([[], {}, [[]], [1], ["0", "1"], {"name": "adam"}, {"name": []}, {"a\nb": 1}]),
)
FAST = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LONG = settings(FAST, max_examples=500, derandomize=False)
Place = tuple[str | int, ...]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("export")
    with closing(open_storage(f"sqlite:///{folder}/s.db", create=True)) as storage:
        study = make_study(storage, FREE, 6)
        run_all(study, lambda parameters: parameters["model.dropout"])
        write_export(of_best(study, "sqlite:///s.db")[0], folder / "best.yaml")
    return (folder / "best.yaml").read_text()


def places(node: Any, place: Place = ()) -> list[Place]:
    """The paths of all nodes of a tree, except its root."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [inner for key, part in items for inner in ((*place, key), *places(part, (*place, key)))]


def at(node: Any, place: Place) -> Any:
    for key in place:
        node = node[key]
    return node


def read_or_refuse(path: Path, content: bytes) -> ExportedConfiguration | None:
    """The export, or None where it is refused as it should be."""
    path.write_bytes(content)
    try:
        return read_export(path)
    except ValueError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    assert "invalid JSON" not in message
    return None


def same(read: Any, written: Any) -> bool:
    """Whether two values are equal, and truth values and text no numbers."""
    if isinstance(written, dict):
        return read.keys() == written.keys() and all(same(read[key], written[key]) for key in written)
    if isinstance(written, list):
        return len(read) == len(written) and all(map(same, read, written))
    return bool(read == written) and isinstance(read, bool) == isinstance(written, bool)


def check_changed(text: str, path: Path, data: st.DataObject) -> None:
    tree = load_yaml(text, "export")
    place = data.draw(st.sampled_from(places(tree)))
    value = data.draw(VALUES)
    at(tree, place[:-1])[place[-1]] = value
    read = read_or_refuse(path, dump_yaml(tree).encode())
    if read is not None:
        back = {**read.model_dump(mode="json"), "configuration": read.settings.tree()}
        assert same(at(back, place), value), (place, value, at(back, place))


def check_removed(text: str, path: Path, data: st.DataObject) -> None:
    tree = load_yaml(text, "export")
    place = data.draw(st.sampled_from([place for place in places(tree) if isinstance(place[-1], str)]))
    holder = at(tree, place[:-1])
    del holder[place[-1]]
    assert read_or_refuse(path, dump_yaml(tree).encode()) is None or place[-2] == "versions"


def check_bytes(text: str, path: Path, data: st.DataObject) -> None:
    content = text.encode()
    start = data.draw(st.integers(0, len(content)))
    end = start + data.draw(st.integers(0, 4))
    junk = data.draw(
        st.binary(max_size=4) | st.sampled_from([b"\n", b": ", b"- ", b"&a ", b"*a", b"\t", b"'"])
    )
    read_or_refuse(path, content[:start] + junk + content[end:])


CHECKS = [check_changed, check_removed, check_bytes]


@pytest.mark.parametrize("check", CHECKS)
def test_a_damaged_export_is_refused_or_read_as_it_is(text: str, tmp_path: Path, check: Any) -> None:
    FAST(given(st.data())(lambda data: check(text, tmp_path / "x.yaml", data)))()


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_many_damaged_exports(text: str, tmp_path: Path, check: Any) -> None:
    LONG(given(st.data())(lambda data: check(text, tmp_path / "x.yaml", data)))()
