"""What optuna-dashboard keeps of a study in its system attributes, checked when it is read: a note or an
artifact that another program wrote in a form of its own would end every page of the study.

Uses of optuna-dashboard's internals, held by a test: the keys of notes and of artifacts, and their form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_NOTE = re.compile(r"(?P<whose>dashboard:(?:\d+:)?note_)(?:ver|str:(?P<piece>.*))", re.DOTALL)
_ARTIFACT = re.compile(r"(?:dashboard:)?artifacts:")
_METRICS = "study:metric_names"
_OF_ARTIFACTS = ("artifact_id", "filename", "mimetype")
"""Texts that the metadata of an artifact has."""


def sensible(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """System attributes of a study or a trial, without what optuna-dashboard could not read. Of a note the
    texts stay, up to the first that is missing."""
    return {
        key: 0 if key.endswith("note_ver") and type(value) is not int else value
        for key, value in attributes.items()
        if _is_sensible(key, value, attributes)
    }


def _is_sensible(key: str, value: Any, attributes: Mapping[str, Any]) -> bool:
    if key == _METRICS:
        return isinstance(value, list) and all(isinstance(name, str) for name in value)
    if _ARTIFACT.match(key):
        return _is_metadata(value)
    note = _NOTE.fullmatch(key)
    piece = note and note["piece"]
    if note is None or piece is None:
        return True
    return re.fullmatch("0|[1-9][0-9]{0,8}", piece) is not None and all(
        isinstance(attributes.get(f"{note['whose']}str:{earlier}"), str)
        for earlier in range(min(int(piece) + 1, len(attributes) + 1))
    )


def _is_metadata(value: Any) -> bool:
    """Whether it is the JSON of an artifact's metadata, or of one that was deleted."""
    try:
        metadata = json.loads(value)
    except (ValueError, TypeError, RecursionError):
        return False
    if metadata is None:
        return True
    return isinstance(metadata, dict) and all(isinstance(metadata.get(key), str) for key in _OF_ARTIFACTS)
