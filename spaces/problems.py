"""Pydantic's complaints about a configuration, as one line: the field's path, the rule, and the value."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from spaces.text import brief, nearest, plain, unknown
from spaces.tree import sections

_OUR_WORDS = {
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of names to values",
    "model_attributes_type": "must be a mapping of names to values",
}
"""In place of pydantic's, where those are about Python or JSON."""


def describe(error: ValidationError, root: type[BaseModel]) -> str:
    """The first problem of reading a tree as ``root``: ``optimizer.lr: input should be ..., but got -1``."""
    problem = error.errors(include_url=False)[0]
    path, holder = _locate(problem["loc"], root)
    if not path:
        return _rule(problem)
    shown, last = ".".join(map(plain, path)), path[-1]
    if problem["type"] == "extra_forbidden" and holder:
        return f"{shown}: {unknown('setting', last, holder.model_fields)}"
    if problem["type"] == "union_tag_invalid":
        variant = problem["input"].get("name") if isinstance(problem["input"], dict) else problem["input"]
        return f"{shown}.name: {unknown(last, variant, sections(holder, last))}"
    if problem["type"] == "union_tag_not_found":
        return f"{shown}.name: must be given; known are {', '.join(sections(holder, last))}"
    return f"{shown}: {_rule(problem)}"


def _locate(loc: Iterable[int | str], root: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None]:
    """The path of a problem, without the tags that pydantic adds for sections with variants
    (``optimizer.sgd.lr``), and the section that holds its last part."""
    path: list[str] = []
    holder: type[BaseModel] | None = None
    inside: type[BaseModel] | None = root
    variants: dict[str, type[BaseModel]] = {}
    for part in loc:
        if len(variants) > 1 and part in variants:
            inside, variants = variants[str(part)], {}
            continue
        path.append(str(part))
        holder = inside
        variants = sections(inside, str(part))
        inside = next(iter(variants.values())) if len(variants) == 1 else None
    return path, holder


def _rule(problem: ErrorDetails) -> str:
    rule = _OUR_WORDS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    rule = rule[:1].lower() + rule[1:]
    value = problem["input"]
    if problem["type"] == "value_error" or isinstance(value, dict):
        return rule
    known = re.findall(r"'([^']*)'", rule) if problem["type"] == "literal_error" else []
    return f"{rule}, but got {brief(value)}{nearest(str(value), known)}"
