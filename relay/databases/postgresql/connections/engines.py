"""Engines on psycopg."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from relay.databases.postgresql.connections import libpq
from relay.databases.postgresql.connections import session_settings as pinning
from relay.databases.postgresql.connections import unsupported_servers as lockless

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


def checked(url: URL) -> URL:
    libpq.parameters(url)
    return url.set(drivername="postgresql+psycopg")


def conninfo(url: URL) -> str:
    """Return the libpq connection string, password included: never log it."""
    from psycopg.conninfo import make_conninfo

    return make_conninfo(**libpq.parameters(url))


def engine(url: URL, schema: str | None, options: dict[str, Any], *, prepares: bool, keeps_session: bool) -> sa.Engine:
    # None of our tables has an hstore, and to look for that type would take three round trips at the first connection.
    ours: dict[str, Any] = {"isolation_level": "READ COMMITTED", "use_native_hstore": False}
    options = ours | _options(url, options)
    if not prepares:
        options["connect_args"]["prepare_threshold"] = None
    engine = sa.create_engine(_target(url), **options)
    if keeps_session:  # a process that nobody watches; a person's command may wait as long as the person likes
        sa.event.listen(engine, "do_connect", _connect_bounded)
    pinning.pin(engine, _pins(schema) | pinning.MEANINGS, keeps_session=keeps_session)
    lockless.watch(engine)
    return engine


def listener_engine(url: URL, schema: str | None, options: dict[str, Any]) -> sa.Engine:
    engine = sa.create_engine(_target(url), **_options(url, options))
    pinning.pin(engine, _pins(schema))
    return engine


def async_listener_engine(url: URL, schema: str | None, options: dict[str, Any]) -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(_target(url), **_options(url, options))
    pinning.pin(engine.sync_engine, _pins(schema))
    return engine


def _connect_bounded(_dialect: object, _record: object, arguments: Any, parameters: Any) -> Any:
    from relay.databases.postgresql.connections.answers import AnsweredConnection

    return AnsweredConnection.connect(*arguments, **parameters)


def _target(url: URL) -> URL:
    """Return the URL that an engine connects to. The options of the given URL are in the parameters."""
    return url.set(query={})


def _options(url: URL, options: dict[str, Any]) -> dict[str, Any]:
    return options | {"connect_args": libpq.parameters(url) | options.get("connect_args", {})}


def _pins(schema: str | None) -> dict[str, str]:
    return pinning.FORMATS | pinning.WRITES | pinning.search_path(schema)
