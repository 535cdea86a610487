"""Where spaces come from: the built-in ones in ``library``, and a user's own files."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from spaces.text import read_text, unknown

_LIBRARY = Path(__file__).with_name("library")


def built_in() -> dict[str, str]:
    """The question of every built-in space, by name."""
    return {name: _question(file.read_text("utf-8")) for name, file in _files().items()}


def find(name_or_path: str) -> tuple[str, str, str]:
    """The text of a space file, the source to name in complaints, and the name of the space.

    A built-in space goes by its name; whatever ends in .yaml or .yml, has a slash, or is there is the path of
    a file in YAML, of which JSON is a part.

    Raises:
        ValueError: for an unknown name or a file that cannot be read.
    """
    files = _files()
    if name_or_path in files:
        file = files[name_or_path]
        return _read(file), file.name, name_or_path
    is_path = "/" in name_or_path or name_or_path.endswith((".yaml", ".yml"))
    if is_path or os.path.exists(name_or_path):  # noqa: PTH110  pathlib fails for a name that is too long
        return _read(Path(name_or_path)), name_or_path, Path(name_or_path).stem
    raise ValueError(f"{unknown('space', name_or_path, files)}, or the path of a YAML file")


def _files() -> dict[str, Path]:
    return {file.stem: file for file in sorted(_LIBRARY.glob("*.yaml"))}


def _read(file: Path) -> str:
    try:
        return read_text(file)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None


def _question(text: str) -> str:
    """The value of the first key, which in the library is the question; the rest is not parsed, so that the
    list of spaces comes at once."""
    scalars = (event for event in yaml.parse(text, yaml.SafeLoader) if isinstance(event, yaml.ScalarEvent))
    assert next(scalars).value == "question"
    return str(next(scalars).value)
