"""Text in and out: strict YAML, stable digests, and the wording for names that are not known.

YAML is read by the core schema of YAML 1.2, on top of PyYAML's safe loader: ``1e-3`` is a number, ``off``
and ``2024-01-01`` are text, and only ``true`` and ``false`` are truth values. What could silently lose or
multiply content is refused: duplicate keys, anchors and aliases, tags, and several documents.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

_DEEPEST = 50
_LARGEST = 1_000_000
_NO_TEXT = re.compile(r"[\0\ud800-\udfff]")
"""What escapes in quotes can write, but no file, database or terminal can hold."""
OBEYED = "\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""A class of characters: what a terminal obeys, but tab and newline, and what breaks or reorders a line."""
_NOT_PLAIN = re.compile(f"[{OBEYED}\t\n\ud800-\udfff]")
"""These, and what stands for bytes that are no UTF-8."""
PLAIN_TEXT = "printable text, without control characters and bidirectional overrides"
"""The rule of ``is_plain_text``, for refusals."""
_INT = re.compile(r"[-+]?[0-9]+$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"(?:~|null|Null|NULL|)$")


def read_text(file: Path) -> str:
    """A file's text, for ``load_yaml``.

    Raises:
        OSError: if it cannot be read.
        ValueError: one line with the file, if it is too large to be read as YAML, or no text.
    """
    with file.open("rb") as opened:
        content = opened.read(_LARGEST + 1)  # a device or a pipe might never end
    if len(content) > _LARGEST:
        raise ValueError(f"{file}: is too large: at most {_LARGEST} bytes are read")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: must be UTF-8 text, but byte {error.start} is not") from None


def load_yaml(text: str, source: str) -> Any:
    """Read one YAML document into dicts, lists and scalars; an empty one gives None.

    Raises:
        ValueError: one line with the source, the line, and what is wrong there.
    """
    try:
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        expected = f"{error.context}, " if (error.context or "").startswith("expected") else ""
        raise ValueError(f"{source}: {line}{expected}{error.problem or 'not valid YAML'}") from None
    except yaml.reader.ReaderError as error:
        line_number = text.count("\n", 0, error.position) + 1
        raise ValueError(
            f"{source}: line {line_number}: character {error.character!r} is not allowed"
        ) from None


def dump_yaml(tree: object) -> str:
    """Write dicts, lists and scalars as YAML that reads back identically, keys in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def digest(tree: object) -> str:
    """A short hash of plain data: 16 hexadecimal digits of the SHA-256 of its JSON with sorted keys."""
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'cosine'?)``, or nothing where no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def unknown(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """The error, to be raised, for a name that is none of the known ones."""
    names = list(known)
    listed = ", ".join(names) or "none"
    return ValueError(f"unknown {kind} {brief(name)}: known are {listed}{nearest(str(name), names)}")


def brief(value: object) -> str:
    """A value as a message shows it: on one line, and cut where it is long."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def is_plain_text(text: str) -> bool:
    """Whether a name may be stored and shown as it is: any letters, spaces and joiners of any script, but no
    control characters, line separators, bidirectional overrides, or bytes that are no UTF-8."""
    return not _NOT_PLAIN.search(text)


def plain_letters(text: str, instead: str = " ") -> str:
    """The text with ``instead`` in place of every character that ``is_plain_text`` rules out."""
    return _NOT_PLAIN.sub(lambda _: instead, text)


def plain(name: object) -> str:
    """A name as part of a path in a message: as it is, unless that would break the line."""
    return str(name) if is_plain_text(str(name)) else repr(str(name))


def short_number(number: float) -> str:
    """A number as a person would write it: 0.05, 1e-4, 32; at most six digits of a fraction."""
    if isinstance(number, int):
        return str(number)
    mantissa, _, exponent = (f"{number:.5e}" if 0 < abs(number) < 1e-3 else f"{number:.6g}").partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if exponent else mantissa


@contextmanager
def within(place: str) -> Iterator[None]:
    """Put a place in front of the message of any ValueError: ``parameters.optimizer.lr: ...``."""
    try:
        yield
    except ValueError as error:
        said, word = str(error), place.removeprefix("--")
        own = word != place and said.startswith(f"{word} ")  # not --storage: storage ...
        raise ValueError(f"--{said}" if own else f"{place}: {said}") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without YAML 1.1's surprises, and without anchors, tags and duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  as PyYAML does
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refusal("anchors and aliases are not allowed", event)
        if getattr(event, "tag", None):
            raise _refusal(f"tags are not allowed, but got {event.tag!r}", event)
        if isinstance(event, yaml.ScalarEvent) and (bad := _NO_TEXT.search(event.value)):
            raise _refusal(f"character {bad[0]!a} is not allowed", event)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _refusal(f"nested more than {_DEEPEST} levels deep", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _refusal("a key must be text or a number", key_node)
            key = self.construct_object(key_node)
            if key in seen:
                raise _refusal(f"duplicate key {key!r}", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        convert = int if node.tag.endswith("int") else float
        text = node.value.replace(".inf", "inf").replace(".nan", "nan") if convert is float else node.value
        try:
            return convert(text)
        except ValueError:
            raise _refusal("a number has too many digits", node) from None


def _refusal(rule: str, where: Any) -> yaml.MarkedYAMLError:
    """The complaint about an event or node of PyYAML, which knows its line."""
    return yaml.MarkedYAMLError(problem=rule, problem_mark=where.start_mark)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, without aliases, and with short lists of scalars on one line."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _write_list(dumper: _Dumper, items: list[object] | tuple[object, ...]) -> yaml.Node:
    flat = not any(isinstance(item, (dict, list, tuple)) for item in items) and len(str(items)) <= 90
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


def _write_dict(dumper: _Dumper, items: dict[object, object]) -> yaml.Node:
    # the keys come as pairs, since PyYAML would sort those of a dict
    return dumper.represent_mapping("tag:yaml.org,2002:map", items.items(), flow_style=not items)


def _register() -> None:
    for tag, pattern, first in (
        ("null", _NULL, ["~", "n", "N", ""]),
        ("bool", _BOOL, list("tTfF")),
        ("int", _INT, list("-+0123456789")),
        ("float", _FLOAT, list("-+0123456789.")),
    ):
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", pattern, first)
        # text that our loader would take for something else gets its quotes
        _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", pattern, first)
    _Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
    _Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)
    _Dumper.add_representer(list, _write_list)
    _Dumper.add_representer(tuple, _write_list)
    _Dumper.add_representer(dict, _write_dict)


_register()
