"""The page itself: HTML with everything in it, which loads nothing and runs nothing but its own scripts.

Whatever comes from users is escaped by Jinja; figures stand in the page as JSON in which no character can
end the script element; and a content security policy allows the two scripts of the page by their hashes, so
that even a markup that slipped through would not run, nor load anything.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from studies.figures.chart import Chart
from studies.report.content import Report


def render(report: Report) -> str:
    """The report as one HTML page."""
    environment = Environment(
        loader=PackageLoader("studies.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure_json": figure_json, "breakable": breakable}
    scripts = {"plotly": _script(get_plotlyjs()), "draw": _script(_read("draw.js"))}
    return environment.get_template("report.html.j2").render(
        report=report,
        style=Markup(_read("report.css")),
        scripts={name: Markup(text) for name, text in scripts.items()},
        policy=_policy([str(text) for text in scripts.values()]),
    )


def figure_json(chart: Chart) -> Markup:
    """A figure as JSON for a script element: ``<``, ``>`` and ``&`` are written as escapes."""
    text: str = chart.figure.to_json()
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def breakable(name: str) -> str:
    """A dotted name that may be broken after its dots and underscores, by spaces of no width."""
    return name.replace(".", ".\N{ZERO WIDTH SPACE}").replace("_", "_\N{ZERO WIDTH SPACE}")


def _read(name: str) -> str:
    return (files("studies.report") / "templates" / name).read_text("utf-8")


def _script(text: str) -> str:
    """As an HTML parser will read it, which the hash must be of."""
    script = text.replace("\r\n", "\n").replace("\r", "\n")
    assert "</script" not in script.lower()
    assert "<!--" not in script
    return script


def _policy(scripts: list[str]) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(_digest(text)).decode()}'" for text in scripts)
    rules: dict[str, Any] = {
        "default-src": "'none'",
        "script-src": hashes,
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
