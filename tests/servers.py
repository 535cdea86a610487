"""Databases for tests: a new one for each test, on every server that answers.

The servers are named by $CIFAR_SEARCH_TEST_POSTGRES and $CIFAR_SEARCH_TEST_MYSQL, as URLs of a database in
which the user may create others.
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

POSTGRES = os.environ.get("CIFAR_SEARCH_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/test")
MYSQL = os.environ.get("CIFAR_SEARCH_TEST_MYSQL", "mysql+pymysql://root@127.0.0.1:3306/test")
_DROP = {"postgresql": "DROP DATABASE {name} WITH (FORCE)", "mysql": "DROP DATABASE {name}"}


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with new_database(POSTGRES) as url:
        yield url


@pytest.fixture
def mysql_url() -> Iterator[str]:
    """The URL of an empty MySQL or MariaDB database."""
    with new_database(MYSQL) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, on each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """A database that lives as long as the ``with`` block.

    Without a server the test is skipped; it fails where the environment names the server.
    """
    if reason := _why_not(server):
        named = server in (
            os.environ.get("CIFAR_SEARCH_TEST_POSTGRES"),
            os.environ.get("CIFAR_SEARCH_TEST_MYSQL"),
        )
        (pytest.fail if named else pytest.skip)(reason)
    name = f"cifar_search_test_{secrets.token_hex(6)}"
    url = make_url(server)
    administer(url, f"CREATE DATABASE {name}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        administer(url, _DROP[url.get_backend_name()].format(name=name))


def administer(server: str | URL, *statements: str) -> None:
    """Run statements outside transactions, on a connection of their own."""
    engine = sa.create_engine(server, poolclass=sa.NullPool, connect_args={"connect_timeout": 3})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@functools.cache
def _why_not(server: str) -> str | None:
    """Why the server cannot be used, or None."""
    try:
        administer(server, "SELECT 1")
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        variable = "CIFAR_SEARCH_TEST_POSTGRES" if server == POSTGRES else "CIFAR_SEARCH_TEST_MYSQL"
        return f"no server at {make_url(server)!r} ({type(error).__name__}): set ${variable} to one"
    return None
