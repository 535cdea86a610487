"""How numbers, times, settings and curves are written for people, on screen and in plain lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spaces.text import short_number

_BARS = "▁▂▃▄▅▆▇█"


def duration(seconds: float) -> str:
    """Seconds as people say them: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def percent(accuracy: float | None) -> str:
    """An accuracy in [0, 1] as a percentage; a dash for none."""
    return "-" if accuracy is None else f"{100 * accuracy:.2f} %"


def setting(value: Any) -> str:
    """A parameter's value, short."""
    if isinstance(value, float):
        return short_number(float(f"{value:.3g}"))
    return str(value)


def settings(parameters: Mapping[str, Any]) -> str:
    """Parameters by the last part of their names: lr 0.05, dropout 0.3."""
    return ", ".join(f"{name.split('.')[-1]} {setting(value)}".strip() for name, value in parameters.items())


def sparkline(values: Sequence[float], width: int = 20, top: float = 1.0) -> str:
    """A curve of values in [0, top] as a row of bars, thinned to ``width`` characters."""
    if not values:
        return ""
    count = min(width, len(values))
    shown = [values[round(index * (len(values) - 1) / max(count - 1, 1))] for index in range(count)]
    scale = (len(_BARS) - 1) / (top or 1.0)
    return "".join(_BARS[min(len(_BARS) - 1, max(0, round(value * scale)))] for value in shown)
