"""Parse a database URL once, and connect to that database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from outbox.errors import SettingsError
from relay.observe.text import redacted
from relay.platform.postgres import libpq
from relay.platform.postgres import session_settings as pinning
from relay.platform.postgres import unsupported_servers as lockless

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

BUSY_TIMEOUT_S = 30.0

# Answers of a server or pooler to a client that it will never let in. libpq passes on only their text.
REFUSALS = (
    " does not exist",
    "no such database",
    "no such user",
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "is not permitted to log in",
    "permission denied for database",
)


@dataclass(frozen=True)
class Database:
    """A PostgreSQL database, through psycopg, or an SQLite file.

    Args:
        url: The URL with its driver replaced by ours.
        schema: The PostgreSQL schema of the outbox; ``None`` follows the ``search_path``.
    """

    url: URL
    schema: str | None = None

    @classmethod
    def parse(cls, text: str, *, schema: str | None = None) -> Database:
        """Parse a database URL with any driver's name in it.

        Args:
            text: ``postgres://…``, ``postgresql[+driver]://…`` or ``sqlite[+driver]:///path``.
            schema: The PostgreSQL schema, if not the first of the ``search_path``.

        Raises:
            SettingsError: The URL is malformed, or names another kind of database. The URL itself is not repeated: it
                may hold a password.
        """
        if not text.isprintable():
            raise SettingsError("the database URL holds a line break or a control character: remove it")
        try:
            url = make_url(text)
        except (sa.exc.ArgumentError, ValueError):  # ValueError: the port is not a number
            raise SettingsError(
                "the database URL is malformed: write postgresql://user:password@host/database or "
                "sqlite:///path/to/outbox.db in OUTBOX_DATABASE_URL or DATABASE_URL"
            ) from None
        if "@" in (url.host or ""):
            # A URL's first @ ends the password, so the rest of the password would be shown as the host.
            raise SettingsError("the database URL holds more than one @: write %40 for one in the user or the password")
        match url.drivername.partition("+")[0]:
            case "postgres" | "postgresql":
                libpq.parameters(url)
                return cls(url.set(drivername="postgresql+psycopg"), schema)
            case "sqlite":
                return cls(url.set(drivername="sqlite"), None)._with_file()
            case other:
                raise SettingsError(
                    f"the database URL begins with {other}:, but only postgresql: and sqlite: are known"
                )

    @property
    def is_postgres(self) -> bool:
        return self.url.get_backend_name() == "postgresql"

    @property
    def is_file(self) -> bool:
        """Whether it is a file, with one writer at a time, and no server."""
        return not self.is_postgres

    @property
    def path(self) -> Path:
        """The path of the file, if it is one."""
        assert self.url.database is not None
        return Path(self.url.database)

    @property
    def conninfo(self) -> str:
        """The libpq connection string, password included: never log it."""
        from psycopg.conninfo import make_conninfo

        return make_conninfo(**libpq.parameters(self.url))

    def __str__(self) -> str:
        return redacted(self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=True))

    @property
    def place(self) -> str:
        """Where the outbox is, in words: the database, and the schema if one is set."""
        return f"schema {self.schema} of {self}" if self.schema else str(self)

    def engine(self, *, prepares: bool = True, keeps_session: bool = False, **options: Any) -> sa.Engine:
        """Return a synchronous engine for our own statements; dispose of it when done.

        Args:
            prepares: Whether to prepare repeated statements; a pooler in transaction mode would lose them.
            keeps_session: Whether it is certain that no pooler takes the session away between transactions.
            options: Options of SQLAlchemy's ``create_engine``.
        """
        if not self.is_postgres:
            return self.listener_engine(**options)
        options = {"isolation_level": "READ COMMITTED"} | self._options(options)
        if not prepares:
            options["connect_args"]["prepare_threshold"] = None
        engine = sa.create_engine(self._target, **options)
        pinning.pin(engine, self._pins | pinning.MEANINGS, keeps_session=keeps_session)
        lockless.watch(engine)
        return engine

    @contextlib.contextmanager
    def short_engine(self, **options: Any) -> Iterator[sa.Engine]:
        """Yield an engine without a pool, as from `engine`; dispose of it afterwards."""
        engine = self.engine(poolclass=sa.NullPool, **options)
        try:
            yield engine
        finally:
            engine.dispose()

    def listener_engine(self, **options: Any) -> sa.Engine:
        """Return a synchronous engine for a listener's sessions: they keep their role's isolation and time zone."""
        engine = sa.create_engine(self._target, **self._options(options))
        self._set_up(engine)
        return engine

    def async_listener_engine(self, **options: Any) -> AsyncEngine:
        """Return an asynchronous engine for sessions that a listener gets."""
        from sqlalchemy.ext.asyncio import create_async_engine

        target = self._target if self.is_postgres else self._target.set(drivername="sqlite+aiosqlite")
        engine = create_async_engine(target, **self._options(options))
        self._set_up(engine.sync_engine)
        return engine

    @property
    def _target(self) -> URL:
        """Return what an engine connects to. The options of a PostgreSQL URL are in the parameters."""
        return self.url.set(query={}) if self.is_postgres else self.url

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        if not self.is_postgres:
            return {"connect_args": {"timeout": BUSY_TIMEOUT_S}} | options
        return options | {"connect_args": libpq.parameters(self.url) | options.get("connect_args", {})}

    def _set_up(self, engine: sa.Engine) -> None:
        if self.is_postgres:
            pinning.pin(engine, self._pins)
        else:
            self._watch(engine)

    @property
    def _pins(self) -> dict[str, str]:
        return pinning.FORMATS | pinning.WRITES | pinning.search_path(self.schema)

    def _watch(self, engine: sa.Engine) -> None:
        """Set up each connection, and discard a connection whose file has been replaced."""

        def note_file(_connection: object, record: Any) -> None:
            record.info["file"] = file_at(self.path)

        def insist_on_file(_connection: object, record: Any, _proxy: object) -> None:
            found = file_at(self.path)
            if found is not None and found != record.info["file"]:
                raise sa.exc.DisconnectionError(f"the database file {self.path} was replaced")

        def make_private(*_: object) -> None:
            create_private(self.path)

        sa.event.listen(engine, "do_connect", make_private)
        sa.event.listen(engine, "connect", _set_pragmas)
        sa.event.listen(engine, "connect", note_file)
        sa.event.listen(engine, "checkout", insist_on_file)

    def _with_file(self) -> Database:
        if self.url.database in (None, "", ":memory:"):
            raise SettingsError(
                "the database URL names no file: an outbox in memory would lose its messages; "
                "write sqlite:///path/to/outbox.db"
            )
        return self


def is_refusal(error: BaseException | None) -> bool:
    """Return whether waiting is useless: the server answers, and has no such database, role or password."""
    said = str(error)
    return ("FATAL" in said and any(each in said for each in REFUSALS)) or "no password supplied" in said


def file_at(path: Path) -> tuple[int, int] | None:
    """Return the identity of the file at a path. A deleted file stays open; a new file of its name differs."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def create_private(path: Path) -> None:
    """Create the file for its owner alone, if it does not exist; SQLite gives its other files the same rights."""
    with contextlib.suppress(OSError):  # it exists, or SQLite will report why it cannot be created
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()
