"""Databases of a character set or a collation that is not the server's usual one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from servers import MYSQL, POSTGRES, administer, new_database
from sqlalchemy.engine import make_url

C_LOCALE = "LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
KINDS = {
    "mysql": (MYSQL, "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"),
    "mysql-latin1": (MYSQL, "CHARACTER SET latin1 COLLATE latin1_swedish_ci"),
    "mysql-utf8mb3": (MYSQL, "CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci"),
    "postgres": (POSTGRES, f"ENCODING 'UTF8' {C_LOCALE}"),
    "postgres-latin1": (POSTGRES, f"ENCODING 'LATIN1' {C_LOCALE}"),
    "postgres-ascii": (POSTGRES, f"ENCODING 'SQL_ASCII' {C_LOCALE}"),
}
"""By what tests call them: the server, and the words that follow CREATE DATABASE."""


@contextmanager
def database_of(kind: str) -> Iterator[str]:
    """The URL of an empty database of one of the ``KINDS``, as long as the ``with`` block runs."""
    server, words = KINDS[kind]
    with new_database(server) as url:
        name = make_url(url).database
        administer(server, f"DROP DATABASE {name}", f"CREATE DATABASE {name} {words}")
        yield url
