"""Rich's console for text that comes from elsewhere: what a terminal obeys comes from Rich alone."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from search.harmless import without_commands

_INSTEAD = "\N{REPLACEMENT CHARACTER}"
"""One column wide, so that tables keep their shape."""


class HarmlessConsole(Console):
    """A console that shows characters which command a terminal as replacement characters."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As inherited, with all text made harmless: before it is laid out, where it is known."""
        if isinstance(renderable, Text) and without_commands(renderable.plain) != renderable.plain:
            renderable = renderable.copy()
            renderable.plain = without_commands(renderable.plain, _INSTEAD)
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(without_commands(text, _INSTEAD), style)
