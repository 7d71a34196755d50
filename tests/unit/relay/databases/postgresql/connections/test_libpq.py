"""A database URL means one thing: engines and the relay's own connection tell the client library the same."""

from typing import Any

import pytest
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict

from outbox.errors import SettingsError
from relay.databases.database import Database
from relay.databases.postgresql.connections.engines import conninfo

URLS: list[tuple[str, dict[str, str]]] = [
    ("postgresql://", {}),
    ("postgres://db/app", {"host": "db", "dbname": "app"}),
    ("postgresql://db", {"host": "db"}),
    ("postgresql://app@db/app", {"host": "db", "dbname": "app", "user": "app"}),
    (
        "postgresql://app:pw@db:5433/app",
        {"host": "db", "dbname": "app", "user": "app", "password": "pw", "port": "5433"},
    ),
    ("postgresql+psycopg://db/app", {"host": "db", "dbname": "app"}),
    ("postgresql+psycopg2://db/app", {"host": "db", "dbname": "app"}),
    ("postgresql+asyncpg://db/app", {"host": "db", "dbname": "app"}),
    ("postgresql://app:p%40ss@db/app", {"host": "db", "dbname": "app", "user": "app", "password": "p@ss"}),
    ("postgresql://app:p%20s%2Bs@db/app", {"host": "db", "dbname": "app", "user": "app", "password": "p s+s"}),
    ("postgresql://app:p s@db/app", {"host": "db", "dbname": "app", "user": "app", "password": "p s"}),
    ("postgresql://app:p's\"s%5C@db/app", {"host": "db", "dbname": "app", "user": "app", "password": "p's\"s\\"}),
    ("postgresql://db/app?user=app&password=p%20s", {"host": "db", "dbname": "app", "user": "app", "password": "p s"}),
    ("postgresql://db/app?password=p+s", {"host": "db", "dbname": "app", "password": "p s"}),
    ("postgresql://[::1]:5433/app", {"host": "::1", "port": "5433", "dbname": "app"}),
    ("postgresql:///app?host=/run/postgresql", {"host": "/run/postgresql", "dbname": "app"}),
    ("postgresql://%2Frun%2Fpostgresql/app", {"host": "/run/postgresql", "dbname": "app"}),
    ("postgresql:///app?host=one:1&host=two:2", {"host": "one,two", "port": "1,2", "dbname": "app"}),
    ("postgresql:///app?host=one&host=two", {"host": "one,two", "port": ",", "dbname": "app"}),
    ("postgresql:///app?host=one,two&port=1,2", {"host": "one,two", "port": "1,2", "dbname": "app"}),
    ("postgresql://one,two/app", {"host": "one,two", "dbname": "app"}),
    (
        "postgresql:///app?host=one:1&host=two:2&target_session_attrs=read-write",
        {"host": "one,two", "port": "1,2", "dbname": "app", "target_session_attrs": "read-write"},
    ),
    (
        "postgresql://db/app?options=-c%20statement_timeout%3D60000",
        {"host": "db", "dbname": "app", "options": "-c statement_timeout=60000"},
    ),
    (
        "postgresql://db/app?options=-cx.a%3D1&options=-cx.b%3D2",
        {"host": "db", "dbname": "app", "options": "-cx.a=1 -cx.b=2"},
    ),
    ("postgresql://db/app?sslmode=verify-full", {"host": "db", "dbname": "app", "sslmode": "verify-full"}),
    (
        "postgresql://db/app?sslmode=verify-ca&sslrootcert=/etc/my%20certs/ca.pem",
        {"host": "db", "dbname": "app", "sslmode": "verify-ca", "sslrootcert": "/etc/my certs/ca.pem"},
    ),
    ("postgresql+asyncpg://db/app?ssl=require", {"host": "db", "dbname": "app", "sslmode": "require"}),
    ("postgresql+asyncpg://db/app?ssl=verify-full", {"host": "db", "dbname": "app", "sslmode": "verify-full"}),
    ("postgresql+asyncpg://db/app?ssl=true", {"host": "db", "dbname": "app", "sslmode": "require"}),
    ("postgresql+asyncpg://db/app?ssl=false", {"host": "db", "dbname": "app", "sslmode": "disable"}),
    ("postgresql+asyncpg://db/app?prepared_statement_cache_size=0", {"host": "db", "dbname": "app"}),
    (
        "postgresql+asyncpg://db/app?timeout=4.5&command_timeout=60",
        {"host": "db", "dbname": "app", "connect_timeout": "4"},
    ),
    ("postgresql+psycopg://db/app?prepare_threshold=0", {"host": "db", "dbname": "app"}),
    ("postgresql://db/app?client_encoding=latin1", {"host": "db", "dbname": "app"}),
    ("postgresql://db/app?connect_timeout=7", {"host": "db", "dbname": "app", "connect_timeout": "7"}),
    ("postgresql://db/app?application_name=my%20app", {"host": "db", "dbname": "app", "application_name": "my app"}),
    ("postgresql:///?service=outbox", {"service": "outbox"}),
    ("postgresql://db/app?keepalives_idle=30", {"host": "db", "dbname": "app", "keepalives_idle": "30"}),
]  # fmt: skip


class Asked(Exception):
    """Stops an engine before it connects."""


def told_by_an_engine(engine: sa.Engine) -> dict[str, Any]:
    """Return the parameters that an engine passes to the client library."""

    def stop(_dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]) -> None:
        raise Asked(parameters)

    sa.event.listen(engine, "do_connect", stop)
    with pytest.raises(Asked) as caught:
        engine.raw_connection()
    return {name: str(value) for name, value in caught.value.args[0].items() if name != "context"}


@pytest.mark.parametrize(("url", "expected"), URLS, ids=[url for url, _ in URLS])
def test_every_connection_is_told_the_same(url: str, expected: dict[str, str]) -> None:
    database = Database.parse(url, schema="messaging")
    expected = expected | {"client_encoding": "utf8"}
    assert conninfo_to_dict(conninfo(database.url)) == expected
    engines = [database.engine(), database.listener_engine(), database.async_listener_engine().sync_engine]
    assert [told_by_an_engine(engine) for engine in engines] == [expected] * 3


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://db/app?schema=x", 'invalid connection option "schema"'),
        ("postgresql://db/app?schema=x", "OUTBOX_SCHEMA"),
        ("postgresql://db/app?pool_size=5", 'invalid connection option "pool_size"'),
        ("postgresql://db/app?sslmod=require", 'invalid connection option "sslmod"'),
        ("postgresql://db/app?sslmode=require&sslmode=disable", "the option sslmode more than once"),
        ("postgresql:///app?host=one,two&port=1", "malformed"),
    ],
)
def test_an_option_that_no_connection_can_have_is_refused_by_name(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match="the database URL") as caught:
        Database.parse(url)
    assert said in str(caught.value)
