"""Fixtures that several test modules share."""

from servers import database_url, mysql_url, postgres_url, sqlite_url

__all__ = ["database_url", "mysql_url", "postgres_url", "sqlite_url"]
