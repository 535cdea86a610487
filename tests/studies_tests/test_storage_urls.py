"""Storage URLs: what is accepted, and that no password is ever shown."""

from __future__ import annotations

import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import servers
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from studies.connections import CONNECT_TIMEOUT
from studies.storage import StorageError, check_url, clean_message, masked, open_storage


@pytest.mark.parametrize(
    ("written", "driver"),
    [
        ("sqlite:///a.db", "sqlite+pysqlite"),
        ("postgres://u:p@h/d", "postgresql+psycopg"),
        ("postgresql://u:p@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg://u:p@h/d", "postgresql+psycopg"),
        ("mysql://u:p@h/d", "mysql+pymysql"),
        ("mariadb://u:p@h/d", "mysql+pymysql"),
        ("mysql+pymysql://u:p@h/d", "mysql+pymysql"),
    ],
)
def test_driver_is_filled_in_and_the_rest_kept(written: str, driver: str) -> None:
    checked = check_url(written)
    assert checked.drivername == driver
    assert checked.set(drivername="x") == make_url(written).set(drivername="x")


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ("", "must be a URL such as sqlite:///"),
        ("cifar.db", "must be a URL such as sqlite:///"),
        ("sqlite:a.db", "must be a URL such as sqlite:///"),
        ("postgresql://u:s3cret/d", "must be a URL such as sqlite:///"),
        ("redis://u:s3cret@h/0", "must be of sqlite, postgresql or mysql (MariaDB), but got 'redis'"),
        ("postgresql+psycopg2://u:s3cret@h/d", "is served by psycopg: write postgresql://"),
        ("mysql+mysqldb://u:s3cret@h/d", "is served by pymysql: write mysql://"),
        ("sqlite://a.db", "holds a path and nothing else: sqlite:///cifar-search.db"),
        ("sqlite:///a.db?mode=ro", "holds a path and nothing else"),
        ("sqlite://", "cannot share a database in memory"),
        ("sqlite:///:memory:", "cannot share a database in memory"),
        ("postgresql://u:s3cret@h", "must name a database: postgresql://user@host/database"),
        ("mysql://u:s3cret@h/", "must name a database"),
        ("postgresql://u:s3c@ret/x@h/d", "'@' in a user name or password must be written %40"),
        ("u:s3cret@h/d", "must be a URL such as sqlite:///"),
    ],
)
def test_bad_url_is_refused_in_one_line_without_its_password(written: str, rule: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_storage(written, create=True)
    message = str(caught.value)
    assert rule in message
    assert "\n" not in message
    assert not any(secret in message for secret in ("s3cret", "s3c", "ret/x"))


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("postgresql://u:pw@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h:5432/d", "postgresql://h:5432/d"),
        ("postgresql://[::1]:5432/d", "postgresql://[::1]:5432/d"),
        ("postgresql://u:p@w/x:y@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:pw/d", "postgresql://u:***/d"),
        ("mysql://u:p%40w@h/d?charset=utf8mb4", "mysql://u:***@h/d?charset=utf8mb4"),
        ("mysql://h/d?password=pw&x=1", "mysql://h/d?password=***&x=1"),
        ("postgresql://h/d?sslpassword=pw", "postgresql://h/d?sslpassword=***"),
        ("u:pw@h/d", "u:***@h/d"),
        ("sqlite:////data/a:b@c.db", "sqlite:////data/a:b@c.db"),
        ("nonsense", "nonsense"),
    ],
)
def test_masked(written: str, shown: str) -> None:
    assert masked(written) == shown


@pytest.mark.parametrize("password", ["hunter2", "p@ss/w%r{d}", "a b+c", "ünï"])
def test_clean_message_hides_the_password_in_every_spelling(password: str) -> None:
    url = make_url("postgresql+psycopg://u@h/d").set(password=password)
    text = url.render_as_string(hide_password=False)
    cause = Exception(f"bad:\n  {text} 'password={password}' {url!r}")
    message = clean_message(OperationalError("SELECT 1", {}, cause), text)
    assert password not in message
    assert text not in message
    assert message.startswith("bad: postgresql+psycopg://u:***@h/d 'password=***'")


def test_clean_message_does_not_hide_letters_inside_words() -> None:
    assert clean_message(Exception("a database, b"), "postgresql://u:b@h/d") == "a database, ***"


@pytest.mark.parametrize(
    ("written", "extra"), [("postgresql://u:s3cret@h/d", "postgres"), ("mysql://u:s3cret@h/d", "mysql")]
)
def test_missing_driver_is_named_with_its_extra(
    written: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, check_url(written).get_driver_name(), None)
    with pytest.raises(StorageError, match=rf'pip install -e "\.\[{extra}\]"') as caught:
        check_url(written)
    assert "s3cret" not in str(caught.value)


@pytest.fixture(params=["hunter2", "p@ss/w%r{d} {0}:x"])
def login(request: pytest.FixtureRequest, mysql_url: str) -> Iterator[str]:
    """The URL of an empty MySQL database by a user who has a password."""
    user, url = f"u{secrets.token_hex(6)}", make_url(mysql_url)
    password = request.param.replace("%", "%%")
    servers.administer(
        servers.MYSQL,
        f"CREATE USER {user}@'%%' IDENTIFIED BY '{password}'",
        f"GRANT ALL ON {url.database}.* TO {user}@'%%'",
    )
    yield url.set(username=user, password=request.param).render_as_string(hide_password=False)
    servers.administer(servers.MYSQL, f"DROP USER {user}@'%%'")


def test_password_with_special_characters_logs_in(login: str) -> None:
    with closing(open_storage(login, create=True)) as storage:
        assert storage.get_all_studies() == []


def test_wrong_password_is_one_clean_line(login: str) -> None:
    wrong = make_url(login).set(password="wr0ng{}").render_as_string(hide_password=False)
    with pytest.raises(StorageError, match="Access denied for user") as caught:
        open_storage(wrong, create=True)
    assert "wr0ng" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("server", [servers.POSTGRES, servers.MYSQL], ids=["postgres", "mysql"])
def test_missing_database_is_one_clean_line(server: str) -> None:
    with servers.new_database(server):  # skips where there is no server
        pass
    with pytest.raises(StorageError, match=r'no_such_place"? does not exist|Unknown database') as caught:
        open_storage(make_url(server).set(database="no_such_place"), create=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_refused_connection_is_one_clean_line(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(StorageError, match="refused") as caught:
        open_storage(f"{scheme}://u:s3cret@127.0.0.1:{port}/d", create=True)
    message = str(caught.value)
    assert message.startswith(f"storage {scheme}://u:***@127.0.0.1:{port}/d: ")
    assert "s3cret" not in message
    assert "\n" not in message


@pytest.mark.slow  # it is waited for
@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_server_that_never_answers_is_given_up(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"{scheme}://u:s3cret@127.0.0.1:{server.getsockname()[1]}/d"
        started = time.monotonic()
        with pytest.raises(StorageError, match=r"timeout|timed out") as caught:
            open_storage(url, create=True)
    assert time.monotonic() - started < 3 * CONNECT_TIMEOUT
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret@no-such-host.invalid/d",
        "mysql://u:s3cret@no-such-host.invalid/d",
        f"postgresql://u:s3cret@{'a' * 80}.example/d",
        f"mysql://u:s3cret@{'a' * 80}.example/d",
        "postgresql://u:s3cret@127.0.0.1/d?no_such_option=1",
        "mysql://u:s3cret@127.0.0.1/d?no_such_option=1",
    ],
)
def test_unusable_server_is_one_clean_line(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_storage(url, create=True)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
