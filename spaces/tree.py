"""Settings of a configuration as plain data: a tree of dicts, addressed by dotted paths.

A tree holds only what somebody wrote down; the typed configuration fills in the defaults.
"""

from __future__ import annotations

from functools import cache
from inspect import isclass
from typing import Any, get_args

from pydantic import BaseModel

Tree = dict[str, Any]
PRESET = "preset"
"""In place of a path: the value is a mapping of dotted paths, each to its setting, that are put together."""


@cache
def sections(model: type[BaseModel] | None, field: str) -> dict[str, type[BaseModel]]:
    """The sections that a field can hold, by their ``name``: several for one with variants, none for a
    plain setting. A section without a ``name`` has the key ''."""
    if model is None or field not in model.model_fields:
        return {}
    annotation = model.model_fields[field].annotation
    candidates = get_args(annotation) or (annotation,)
    found = [kind for kind in candidates if isclass(kind) and issubclass(kind, BaseModel)]
    return {kind.model_fields["name"].default if "name" in kind.model_fields else "": kind for kind in found}


def put(tree: Tree, path: str, value: object, model: type[BaseModel] | None) -> Tree:
    """A copy of the tree with the setting, or whole section, at a dotted path replaced.

    Naming another variant of a section (``optimizer.name``) keeps those of its written settings that the new
    variant also has, and drops the others; what was not written takes the new variant's own defaults.
    ``model`` is the section that the tree describes; an unknown path is written as it is, and refused when
    the configuration is read.
    """
    head, _, rest = path.partition(".")
    if not rest:
        return {**tree, head: value}
    kinds = sections(model, head)
    section = _section(tree, head, model)
    if rest == "name":
        known = kinds[value].model_fields if isinstance(value, str) and value in kinds else section
        return {
            **tree,
            head: {"name": value, **{k: v for k, v in section.items() if k in known and k != "name"}},
        }
    return {**tree, head: put(section, rest, value, kinds.get(section.get("name", "")))}


def _section(tree: Tree, head: str, model: type[BaseModel] | None) -> Tree:
    """What is written of a section, with the name of its variant also where that is the default."""
    written = tree.get(head)
    section = dict(written) if isinstance(written, dict) else {}
    default = model.model_fields[head].default if sections(model, head) and model else None
    name = getattr(default, "name", None)
    return {"name": name, **section} if name else section


def put_all(tree: Tree, path: str, value: Any, model: type[BaseModel] | None) -> Tree:
    """As ``put``; with ``PRESET`` as the path, every setting of the mapping in its order."""
    if path != PRESET:
        return put(tree, path, value, model)
    for inner, setting in value.items():
        tree = put(tree, inner, setting, model)
    return tree


def at(tree: Tree, path: str) -> Any:
    """The value at a dotted path.

    Raises:
        KeyError: where the tree has no such setting.
    """
    value: Any = tree
    for part in path.split("."):
        if not isinstance(value, dict):
            raise KeyError(path)
        value = value[part]
    return value
