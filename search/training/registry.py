"""Explicit tables from the names in a configuration to what builds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from spaces.text import unknown

Builder = TypeVar("Builder", bound=Callable[..., object])


class Registry(dict[str, Builder]):
    """A table name -> builder that refuses duplicates and names the known ones when asked for another."""

    def __init__(self, kind: str) -> None:
        """``kind`` says what the names are, in error messages: "optimizer"."""
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[Builder], Builder]:
        """Return a decorator that adds a builder under ``name``."""
        if name in self:
            raise ValueError(f"{self.kind} {name!r} is registered twice")

        def add(builder: Builder) -> Builder:
            self[name] = builder
            return builder

        return add

    def __missing__(self, name: str) -> Builder:
        raise unknown(self.kind, name, list(self))
