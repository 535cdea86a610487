"""Text as it may be shown: without what a terminal obeys, and without the passwords of the command's URLs.

Names of studies, parameters, classes and files, arguments, exports and errors of databases come from
elsewhere, and may hold escape sequences. A storage's URL that was typed in a wrong place comes back in a
message about it; it is told by its letters, since a refusal need not wait for the libraries of databases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from spaces.text import OBEYED

_OBEYED = re.compile(f"[{OBEYED}]")
_LOGIN = re.compile(r"[A-Za-z][\w+.-]*:/+[^/?@:]*:(.*)@", re.DOTALL)
_NO_HOST = re.compile(r"[A-Za-z][\w+.-]*:/+[^/?@:\[]+:(?!\d*(?:[/?]|$))([^/?@]*)(?:[/?]|$)")
_QUERY = re.compile(r"(?i)[?&][^=&]*pass[^=&]*=([^&]*)")
_SHORTEST_CUT = 4
"""Letters of a password that was cut, as in a long value's message, which are masked."""


def without_commands(text: str, instead: str | None = None) -> str:
    """The text with ``instead``, or the way it is written in a program, for each character that commands."""
    return _OBEYED.sub(lambda found: instead or found[0].encode("unicode_escape").decode(), text)


def secrets_of(words: Iterable[str]) -> tuple[str, ...]:
    """The passwords in the URLs among the words, in the ways in which messages write them, longest first."""
    found = {form for word in words for secret in _secrets(word) for form in _forms(secret)}
    return tuple(sorted(found - {"", "***"}, key=len, reverse=True))


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """The text with ``***`` in place of passwords, where they stand in a URL or in the beginning of one."""
    for secret in secrets:
        text = re.sub(rf"([:=]){re.escape(secret)}(?=[@&/?\s'\"):,;]|$)", r"\1***", text)
        for length in range(len(secret), _SHORTEST_CUT - 1, -1):
            text = text.replace(f":{secret[:length]}...", ":***...")
    return text


def _secrets(word: str) -> Iterator[str]:
    for pattern in (_LOGIN, _NO_HOST, _QUERY):
        yield from pattern.findall(word)


def _forms(secret: str) -> Iterator[str]:
    """As typed, as Python shows it, decoded, and as a path has it, in which slashes are one."""
    for form in (secret, unquote(secret)):
        yield from (form, repr(form)[1:-1], re.sub("/+", "/", form), " ".join(form.split()))
