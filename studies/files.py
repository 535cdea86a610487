"""Files that are there whole or not at all, in folders where others may write too."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_SHOWN = 48
"""Letters of a file's name that its draft has too, so that the draft's name is not too long for any."""


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A new file, written in the ``with`` block, that takes the place of ``path`` where the block ends well.

    Nobody can have laid anything at the draft's name, which cannot be guessed, and it is made exclusively:
    a link there is an error, and is not followed. A link at ``path`` itself is replaced, not followed.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f".{path.name[:_SHOWN]}.{secrets.token_hex(8)}")
    file = draft.open("xb")
    try:
        with file:
            yield file
        draft.replace(path)  # closed before: a file server may tell only then that it has no room
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all, with the line ends that it has. Characters that UTF-8 has not, as
    another program can leave them in a database, are escaped.

    Raises:
        ValueError: if it cannot be written.
    """
    try:
        with whole(path) as file:
            file.write(text.encode(errors="backslashreplace"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror or error})") from None
