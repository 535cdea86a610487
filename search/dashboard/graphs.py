"""Our figures as graphs of a study on optuna-dashboard."""

from __future__ import annotations

import base64
import json
import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna_dashboard import save_plotly_graph_object
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

from studies.base import Study

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TITLE_WIDTH, LINE_HEIGHT = 40, 20
"""Characters, and pixels, of a line of a figure's title."""
CARD_HEIGHT = 460
"""Pixels of the place that the dashboard has for a figure; it cuts off what is higher."""
LARGEST = 60_000
"""Characters of a figure: it is cut into attributes of 2,045, which every browser reads every few seconds."""


def save_graph(study: Study, name: str, figure: Figure) -> bool:
    """Show the figure under the identifier ``name``, unless the study shows this very one already.

    Returns:
        Whether it was written.

    Raises:
        ValueError: for a figure that is too large.
    """
    text = compact(figure)
    if len(text) > LARGEST:
        raise ValueError(f"figure {name}: must have at most {LARGEST} characters, but got {len(text)}")
    there = get_plotly_graph_objects(study.storage.get_study_system_attrs(study.study_id))
    if there.get(name) == text:
        return False
    save_plotly_graph_object(study.optuna, _Written(text), graph_object_id=name)
    return True


def compact(figure: Figure) -> str:
    """The figure as JSON: without its template, the largest part of a small one, and with short numbers in
    lists in place of packed arrays."""
    tree = figure.to_plotly_json()
    layout = tree.get("layout", {})
    layout.pop("template", None)
    _narrow(layout)
    _lower(layout)
    return json.dumps(_short(tree), separators=(",", ":"), allow_nan=False)


def _narrow(layout: dict[str, Any]) -> None:
    """Fit the words to half a page, beside plotly's buttons: a figure's usual place on the dashboard."""
    for name, axis in layout.items():
        if name.startswith(("xaxis", "yaxis")) and "text" in axis.get("title", {}):
            axis["title"].setdefault("font", {"size": 13})
    title = layout.get("title", {}).get("text", "")
    written = title.split("<br>")
    lines = textwrap.wrap(" ".join(written), TITLE_WIDTH, break_long_words=False, break_on_hyphens=False)
    more = LINE_HEIGHT * (len(lines) - len(written))
    if more <= 0:
        return
    layout["title"]["text"] = "<br>".join(lines)
    if "t" in layout.get("margin", {}):
        layout["margin"]["t"] += more
    if "height" in layout:
        layout["height"] += more


def _lower(layout: dict[str, Any]) -> None:
    """Fit a figure of many rows to its place, with smaller words beside them."""
    height = layout.get("height", 0)
    if height <= CARD_HEIGHT:
        return
    layout["height"] = CARD_HEIGHT
    for name, axis in layout.items():
        if name.startswith("yaxis"):
            axis["tickfont"] = {"size": max(6, round(12 * CARD_HEIGHT / height))}


def _short(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() >= {"dtype", "bdata"}:  # how plotly writes arrays
        array = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
        shape = [int(size) for size in str(value.get("shape", "")).split(",") if size]
        return _short(array.reshape(shape or -1).tolist())
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _short(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_short(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


@dataclass(frozen=True)
class _Written:
    """What optuna-dashboard asks of a figure: plotly's own would take its template back."""

    text: str

    def to_json(self) -> str:
        return self.text
