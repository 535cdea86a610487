"""Storage URLs: which databases are supported, and how URLs and errors are shown without a password."""

from __future__ import annotations

import importlib
import re
from urllib.parse import quote, quote_plus

from optuna.exceptions import OptunaError, StorageInternalError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg", "mysql": "pymysql"}
"""The one driver of each database that is supported, by SQLAlchemy's names."""
_ALIASES = {"postgres": "postgresql", "mariadb": "mysql"}
_EXTRAS = {"psycopg": "postgres", "pymysql": "mysql"}
_EXAMPLES = "sqlite:///cifar-search.db or postgresql://user@host/database"
_LONGEST_MESSAGE = 500
_SECRET_OPTION = r"(?i)([?&][^=&]*pass[^=&]*=)[^&]*"


class StorageError(ValueError):
    """A storage that cannot be used: one line with the storage, the reason and, if there is one, the remedy.

    Never holds a password.
    """


class RefusedError(StorageError, StorageInternalError):
    """What a database says of a value or a statement; an error of Optuna's kind too."""


class GoneError(StorageError, KeyError):
    """A study or a trial that is not there, or not any more: a person deleted or renamed it."""

    def __str__(self) -> str:
        return str(self.args[0])


def check_url(url: str | URL) -> URL:
    """The URL with its driver filled in: ``postgres://`` is served by psycopg, ``mysql://`` by PyMySQL.

    Connects to nothing.

    Raises:
        StorageError: the text is no URL, or names an unknown database, another driver than the supported
            one, a driver that is not installed, or a place where no study can be kept.
    """
    parsed = _parsed(url)
    scheme, _, driver = parsed.drivername.partition("+")
    backend = _ALIASES.get(scheme, scheme)
    if backend not in DRIVERS:
        raise StorageError(
            f"storage {masked(url)}: must be of sqlite, postgresql or mysql (MariaDB), but got {scheme!r}"
        )
    if driver and driver != DRIVERS[backend]:
        raise StorageError(
            f"storage {masked(url)}: {backend} is served by {DRIVERS[backend]}: write {backend}://"
        )
    _check_place(parsed, backend)
    _check_driver(parsed, DRIVERS[backend])
    return parsed.set(drivername=f"{backend}+{DRIVERS[backend]}")


def masked(url: str | URL) -> str:
    """The URL as text that may be shown: ``***`` stands where a password stood, also in a malformed URL."""
    text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    text = re.sub(r"^((?:[^:/@]+://)?[^:/@]*):(?!//).*@", r"\1:***@", text, flags=re.DOTALL)
    text = re.sub(r"^([^:/@]+://[^:/@\[]+):(?!\d*(?:[/?]|$))[^/?@]*(?=[/?]|$)", r"\1:***", text)
    return re.sub(_SECRET_OPTION, r"\1***", text)


def clean_message(error: BaseException, url: str | URL) -> str:
    """What an error of the storage says at its root, in one line, without the URL's password."""
    cause = _root(error)
    coded = len(cause.args) > 1 and isinstance(cause.args[0], int) and isinstance(cause.args[-1], str)
    text = str(cause.args[-1]) if coded and not isinstance(cause, OSError) else str(cause)
    for secret in _secrets(url):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return " ".join(text.split())[:_LONGEST_MESSAGE] or type(cause).__name__


def _parsed(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # their texts may hold the password
        raise StorageError(f"storage must be a URL such as {_EXAMPLES}, but got {masked(url)!r}") from None
    if "@" in f"{parsed.host or ''}{parsed.database or ''}" and parsed.password is not None:
        raise StorageError(
            f"storage {masked(url)}: an '@' in a user name or password must be written %40, and '/' %2F"
        )
    return parsed


def _check_place(url: URL, backend: str) -> None:
    if backend != "sqlite":
        if not url.database:
            raise StorageError(f"storage {masked(url)}: must name a database: {backend}://user@host/database")
        return
    if url.host or url.username or url.query:
        raise StorageError(
            f"storage {masked(url)}: an SQLite URL holds a path and nothing else: sqlite:///cifar-search.db "
            "(in the working folder) or sqlite:////home/me/cifar-search.db"
        )
    if url.database in (None, "", ":memory:"):
        raise StorageError(
            f"storage {masked(url)}: must be a file, since worker processes cannot share a database in memory"
        )
    if "\0" in str(url.database):
        raise StorageError(f"storage {masked(url)!r}: a file name cannot hold a null character")


def _check_driver(url: URL, driver: str) -> None:
    if driver not in _EXTRAS:
        return
    try:
        importlib.import_module(driver)
    except ImportError:
        raise StorageError(
            f'storage {masked(url)}: needs {driver}: pip install -e ".[{_EXTRAS[driver]}]"'
        ) from None


def _root(error: BaseException) -> BaseException:
    """The driver's error below SQLAlchemy's, below Optuna's."""
    while isinstance(error, OptunaError) and error.__cause__ is not None:
        error = error.__cause__
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _secrets(url: str | URL) -> list[str]:
    """The URL's passwords as they may stand in a text: plain and percent-encoded, longest first."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return [url] if isinstance(url, str) and url else []
    plain = [str(parsed.password)] if parsed.password else []
    for key, value in parsed.query.items():
        if "pass" in key.lower():
            plain += [value] if isinstance(value, str) else list(value)
    written = {
        form
        for secret in plain
        for form in (secret, quote(secret), quote(secret, safe=" +"), quote_plus(secret))
    }
    return sorted(written - {""}, key=len, reverse=True)
