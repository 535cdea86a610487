"""Fixtures that several test modules share, and one thread for each process that runs tests."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # waiting threads cost more than they give, also in children
os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "90")  # seconds for Ray to start; read when it is imported

from networks import cable
from servers import database_url, mysql_url, postgres_url, sqlite_url

__all__ = ["cable", "database_url", "mysql_url", "postgres_url", "sqlite_url"]
