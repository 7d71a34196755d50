"""Parse a database URL once, and connect to that database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from outbox.errors import SettingsError
from relay.databases.address import Address
from relay.databases.dialect import Dialect, dialect_named

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from relay.databases.store.contract import Store


def close_engine(engine: sa.Engine) -> None:
    """Close the connections of an engine: those in use as soon as they are returned.

    ``dispose`` alone would leave the connections in use open after their return, until they are collected as garbage.
    """
    sa.event.listen(engine, "checkin", _close)
    engine.dispose()


def _close(_connection: Any, entry: sa.pool.ConnectionPoolEntry) -> None:
    entry.close()


class Database(Address):
    """A database, through our driver for it: PostgreSQL, or an SQLite file."""

    @classmethod
    def parse(cls, text: str, *, schema: str | None = None) -> Database:
        """Parse a database URL with any driver's name in it.

        Args:
            text: ``postgres://…``, ``postgresql[+driver]://…`` or ``sqlite[+driver]:///path``.
            schema: The PostgreSQL schema, if it is not the first of the ``search_path``.

        Raises:
            SettingsError: The URL is malformed, or names another kind of database. The error does not repeat the URL,
                which may hold a password.
        """
        if not text.isprintable():
            raise SettingsError("the database URL holds a line break or a control character: remove it")
        try:
            url = make_url(text)
        except (sa.exc.ArgumentError, ValueError):  # ValueError: the port is not a number
            raise SettingsError(
                "the database URL is malformed: write postgresql://user:password@host/database or "
                "sqlite:///path/to/outbox.db"
            ) from None
        if "@" in (url.host or "") or (url.host and "@" in (url.database or "")):
            # A URL's first @ ends the password, so the rest of a password would be shown as the host and the database.
            raise SettingsError(
                "the database URL holds more than one @: write %40 for one in the user or the password, and %2F for a /"
            )
        dialect = dialect_named(url.drivername.partition("+")[0])
        return cls(dialect.checked(url), schema if dialect.HAS_SCHEMAS else None)

    @property
    def dialect(self) -> Dialect:
        """The dialect of this database."""
        return dialect_named(self.url.get_backend_name())

    @property
    def is_file(self) -> bool:
        """Whether it is a file with one writer at a time, and not a server."""
        return self.dialect.IS_FILE

    def engine(self, *, prepares: bool = True, keeps_session: bool = False, **options: Any) -> sa.Engine:
        """Return a synchronous engine for our own statements; dispose of it when done.

        Args:
            prepares: Whether to prepare repeated statements; a pooler in transaction mode would lose them.
            keeps_session: Whether it is certain that no pooler gives the session to another client between
                transactions.
            options: Options of SQLAlchemy's ``create_engine``.
        """
        return self.dialect.engine(self.url, self.schema, options, prepares=prepares, keeps_session=keeps_session)

    @contextlib.contextmanager
    def short_engine(self, **options: Any) -> Iterator[sa.Engine]:
        """Yield an engine without a pool, as from `engine`; dispose of it afterwards."""
        engine = self.engine(poolclass=sa.NullPool, **options)
        try:
            yield engine
        finally:
            engine.dispose()

    def listener_engine(self, **options: Any) -> sa.Engine:
        """Return a synchronous engine for a listener's sessions, which keep their role's isolation and time zone."""
        return self.dialect.listener_engine(self.url, self.schema, options)

    def async_listener_engine(self, **options: Any) -> AsyncEngine:
        """Return an asynchronous engine for a listener's sessions."""
        return self.dialect.async_listener_engine(self.url, self.schema, options)

    def store(self, *, lease_s: float, keep_history: bool, notify: bool, skipping: Sequence[str] = ()) -> Store:
        """Return a store, which opens a relay's owning sessions.

        Args:
            lease_s: Seconds after which the server ends a silent session.
            keep_history: Whether settled messages move to the history or are deleted.
            notify: Whether to listen for workers' notifications; if not, notifications are switched off for all relays.
            skipping: The destinations whose dead letters do not hold their successors up.
        """
        return self.dialect.store(self, lease_s=lease_s, keep_history=keep_history, notify=notify, skipping=skipping)
