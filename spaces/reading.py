"""The entries of a space file, checked one by one."""

from __future__ import annotations

from typing import Any

from spaces.ablation import Together
from spaces.config import Configuration
from spaces.parameter import read_parameters
from spaces.text import PLAIN_TEXT, brief, is_plain_text, unknown

PROSE = ("question", "command", "cost", "result")
KEYS = (*PROSE, "base", "balance", "pruning_warmup", "first", "together", "parameters")


def read_fields(tree: object) -> dict[str, Any]:
    """The fields of a ``Space`` from a file's tree: everything that can be checked entry by entry.

    Raises:
        ValueError: the place, the rule and the value.
    """
    if not isinstance(tree, dict):
        raise ValueError(f"must be a mapping with question, base and parameters, but got {brief(tree)}")
    for key in tree:
        if key not in KEYS:
            raise unknown("key", key, KEYS)
    prose = {key: _prose(tree, key) for key in PROSE}
    if not prose["question"]:
        raise ValueError("question: must be given: one sentence that the search answers")
    base = tree.get("base", {})
    return {
        **prose,
        "written": base,
        "base": Configuration.read(base, "base"),
        "parameters": read_parameters(tree.get("parameters")),
        "balance": _name(tree.get("balance")),
        "pruning_warmup": _share(tree.get("pruning_warmup")),
        "first": _entries(tree.get("first", [])),
        "together": _groups(tree.get("together")),
    }


def _prose(tree: dict[str, Any], key: str) -> str:
    text = tree.get(key, "")
    if not isinstance(text, str):
        raise ValueError(f"{key}: must be text, but got {brief(text)}")
    prose = " ".join(text.split())
    if not is_plain_text(prose):
        raise ValueError(f"{key}: must be {PLAIN_TEXT}, but got {brief(prose)}")
    return prose


def _name(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"balance: must be the name of a parameter, but got {brief(value)}")
    return value


def _share(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(
            f"pruning_warmup: must be a share of the epochs, from 0 to 1, but got {brief(value)}"
        )
    return float(value)


def _groups(together: object) -> Together | None:
    if together is None:
        return None
    if not isinstance(together, list) or not all(_is_group(group) for group in together):
        raise ValueError(
            "together: must be a list of groups, each of two or more paths of settings or sections, such as "
            f"[[optimizer.name, schedule]], but got {brief(together)}"
        )
    for path in (path for group in together for path in group):
        if path.partition(".")[0] not in Configuration.model_fields:
            raise ValueError(
                f"together: {unknown('section', path.partition('.')[0], Configuration.model_fields)}"
            )
    return tuple(tuple(group) for group in together)


def _is_group(group: object) -> bool:
    return isinstance(group, list) and len(group) > 1 and all(isinstance(path, str) for path in group)


def _entries(first: object) -> tuple[dict[str, Any], ...]:
    if not isinstance(first, list) or not all(isinstance(entry, dict) and entry for entry in first):
        raise ValueError(f"first: must be a list of mappings of parameters to values, but got {brief(first)}")
    return tuple(first)
