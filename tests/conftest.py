"""Fixtures that several test modules share, and one thread for each process that runs tests."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # waiting threads cost more than they give, also in children

from servers import database_url, mysql_url, postgres_url, sqlite_url

__all__ = ["database_url", "mysql_url", "postgres_url", "sqlite_url"]
