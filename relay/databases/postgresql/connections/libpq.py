"""Convert a database URL to the parameters of a PostgreSQL connection, for engines and bare connections alike.

SQLAlchemy parses the URL, as it does in the workers. Other drivers' names of options are translated, and options that
only other drivers know are left out. So one URL serves a worker on asyncpg and a relay on psycopg.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import sqlalchemy as sa
from sqlalchemy.engine import URL

from outbox.errors import SettingsError

# Options of asyncpg, psycopg and pg8000 that do not affect how the server is reached.
DRIVERS_OWN = frozenset(
    {
        "async_fallback",
        "command_timeout",
        "max_cacheable_statement_size",
        "max_cached_statement_lifetime",
        "prepare_threshold",
        "prepared_statement_cache_size",
        "prepared_statement_name_func",
        "statement_cache_size",
    }
)
RENAMED = {"ssl": "sslmode", "timeout": "connect_timeout"}
SSL_WORDS = {"true": "require", "1": "require", "on": "require", "false": "disable", "0": "disable", "off": "disable"}
ELSEWHERE = "; OUTBOX_SCHEMA names the schema, and options=-c%20name%3Dvalue makes a setting of the server"


def parameters(url: URL) -> dict[str, str]:
    """Return libpq's parameters for a server, by libpq's keywords. They include the password: never log them.

    Args:
        url: A PostgreSQL URL with any driver's name.

    Raises:
        SettingsError: libpq does not know an option of the URL, or the URL sets one twice.
    """
    return dict(_parameters(url))


@lru_cache(maxsize=8)  # a relay asks ten times for the parameters of its one database
def _parameters(url: URL) -> dict[str, str]:
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo
    from sqlalchemy.dialects.postgresql.psycopg import dialect

    try:
        _, given = dialect().create_connect_args(url)  # type: ignore[no-untyped-call]
    except sa.exc.ArgumentError as error:
        raise SettingsError(f"the database URL is malformed: {error}") from None
    found = {name: _single(name, value) for name, value in given.items() if name not in DRIVERS_OWN}
    if found.get("host", "").lower().startswith("%2f"):
        found["host"] = unquote(found["host"])  # a socket's directory, percent-encoded as in libpq's own URLs
    found = _translated(found) | {"client_encoding": "utf8"}
    try:
        make_conninfo(**found)
    except ProgrammingError as error:  # the error names the option
        raise SettingsError(f"the database URL is refused by PostgreSQL's client library: {error}{ELSEWHERE}") from None
    return found


def _single(name: str, value: Any) -> str:
    if not isinstance(value, tuple | list):
        return str(value)
    if name == "options":
        return " ".join(value)
    raise SettingsError(f"the database URL has the option {name} more than once: leave one of them")


def _translated(found: dict[str, str]) -> dict[str, str]:
    """Return the parameters with other drivers' names replaced by libpq's; a name of libpq's has precedence."""
    for theirs, ours in RENAMED.items():
        value = found.pop(theirs, None)
        if value is not None:
            found.setdefault(ours, SSL_WORDS.get(value.lower(), value) if theirs == "ssl" else value.partition(".")[0])
    return found
