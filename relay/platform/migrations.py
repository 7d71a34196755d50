"""Run the Alembic migrations: from a checkout, or from the copy in the wheel."""

from __future__ import annotations

import io
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from outbox.errors import SchemaError
from outbox.schema import VERSION_TABLE, scripts
from relay.platform.database import BUSY_TIMEOUT_S, Database
from relay.platform.migration_lock import take_turn
from relay.platform.rights import MIGRATOR, USAGE, refuse_creators, refuse_without
from relay.platform.schema import check_schema, refuse_former_shape, refuse_strangers

BRANCHES = ("outbox", "content")
TAKEN = ("42P07", "42710", "42723")  # a relation, another object or a function of this name exists already
LOCK_TIMEOUT_S = 2.0
LOCK_TRIES = 20
LOCK_PAUSE_S = 1.0  # sessions that waited behind us get the lock in this time


def upgrade(url: str, *, schema: str | None = None, only: str | None = None) -> list[str]:
    """Bring a database to the newest schema; safe to run from many processes at once.

    Args:
        url: The database. An SQLite file is created when it does not exist.
        schema: The PostgreSQL schema of the outbox, created if it does not exist.
        only: ``"outbox"`` or ``"content"``: leave the other branch alone.

    Returns:
        The revisions that were applied, in order; empty when there was nothing to do.

    Raises:
        SchemaError: A lock could not be taken, something of that name exists and is not ours, or another role was
            granted CREATE in the schema that our tables are to be created in.
        Unusable: The role lacks a right.
    """
    database = Database.parse(url, schema=schema)
    target = f"{only}@head" if only else "heads"

    def up(config: Config) -> None:
        connection = config.attributes["connection"]
        _refuse_obstacles(connection, database, _pending(connection, database, only))
        command.upgrade(config, target)

    try:
        return _retrying_locks(lambda: _run(database, up))
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) in ("42501", "3F000"):
            _refuse_without_rights(database)
        raise


def downgrade(url: str, *, schema: str | None = None, only: str | None = None) -> list[str]:
    """Remove everything that the migrations created, with its contents."""
    database = Database.parse(url, schema=schema)

    def down(config: Config) -> None:
        for branch in [only] if only else BRANCHES:
            command.downgrade(config, f"{branch}@base")

    return _run(database, down)


def planned(database: Database, *, only: str | None = None) -> list[str]:
    """Return the revisions that ``upgrade`` would apply, in order.

    Raises:
        SchemaError: ``upgrade`` would refuse: the database has objects of these names, or another role was granted
            CREATE.
    """
    with _connect(database) as connection:
        found = _pending(connection, database, only)
        _refuse_obstacles(connection, database, found)
    return found


def _refuse_obstacles(connection: sa.Connection, database: Database, revisions: list[str]) -> None:
    if not _current(connection):
        refuse_creators(connection)
    for branch in BRANCHES:
        if f"{branch}_0001" in revisions:
            creates = sql(connection.dialect.name, only=branch)
            refuse_strangers(connection, creates, branch=branch, schema=database.schema)


def pending(database: Database, *, only: str | None = None) -> list[str]:
    """Return the revisions that ``upgrade`` would apply, in order."""
    with _connect(database) as connection:
        return _pending(connection, database, only)


def _pending(connection: sa.Connection, database: Database, only: str | None) -> list[str]:
    current = set(_current(connection))
    _refuse_former_shape(connection, database)
    script = ScriptDirectory.from_config(_config())
    if _is_newer(connection, script):
        return []
    wanted = [only] if only else BRANCHES
    revisions = [r for branch in wanted for r in reversed([*script.iterate_revisions(f"{branch}@head", "base")])]
    return [r.revision for r in revisions if r.revision not in _with_ancestors(script, current)]


def sql(dialect: str = "postgresql", *, schema: str | None = None, only: str | None = None) -> str:
    """Return the migrations as SQL, to read, to hand over, or to paste into your own revision.

    Args:
        dialect: ``"postgresql"`` or ``"sqlite"``.
        schema: The PostgreSQL schema of the outbox.
        only: ``"outbox"`` or ``"content"``.
    """
    output = io.StringIO()
    config = _config(output_buffer=output)
    config.attributes.update(dialect=dialect, schema=schema)
    command.upgrade(config, f"{only}@head" if only else "heads", sql=True)
    return output.getvalue()


def _config(**options: Any) -> Config:
    config = Config(**options)
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _run(database: Database, work: Callable[[Config], None]) -> list[str]:
    with _connect(database, write=True) as connection:
        before = _current(connection)
        _refuse_former_shape(connection, database)
        config = _config()
        if _is_newer(connection, ScriptDirectory.from_config(config)):
            return []
        config.attributes.update(connection=connection, schema=database.schema)
        try:
            work(config)
        except sa.exc.DBAPIError as error:
            if (taken := _taken(error)) is None:
                raise
            raise taken from error
        script = ScriptDirectory.from_config(config)
        done = _with_ancestors(script, set(_current(connection))) - _with_ancestors(script, set(before))
        return sorted(done)


def _taken(error: sa.exc.DBAPIError) -> SchemaError | None:
    """Return an error that names the object of another application, if that is why a migration failed."""
    said = " ".join(str(error.orig).split())
    if getattr(error.orig, "sqlstate", None) not in TAKEN and "already exists" not in said:
        return None
    return SchemaError(
        f"{said}: the outbox did not create it, so nothing was changed. Set OUTBOX_SCHEMA to give the outbox a schema "
        "of its own (on SQLite: a file), or rename it"
    )


@contextmanager
def _connect(database: Database, *, write: bool = False) -> Iterator[sa.Connection]:
    with database.short_engine() as engine:
        if not database.is_postgres:
            _serialise_sqlite(engine, write=write)
        with engine.begin() as connection:
            if database.is_postgres and write:
                _prepare_postgres(connection, database.schema)
            yield connection


def _prepare_postgres(connection: sa.Connection, schema: str | None) -> None:
    """Take the migration lock, limit the wait for locks that workers need, and select the schema."""
    take_turn(connection)
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
    if schema is not None:
        quoted = connection.dialect.identifier_preparer.quote(schema)
        if schema not in sa.inspect(connection).get_schema_names():
            connection.exec_driver_sql(f"CREATE SCHEMA {quoted}")
    else:
        quoted = connection.scalar(sa.text("SELECT quote_ident(current_schema())"))
        if quoted is None:
            raise SchemaError("the search_path names no existing schema: set OUTBOX_SCHEMA, or create the schema first")
    # Without USAGE everything would be created in pg_temp, and be gone with the connection.
    refuse_without(connection, [USAGE], schema=schema or connection.scalar(sa.text("SELECT current_schema()")))
    connection.exec_driver_sql(f"SET LOCAL search_path TO {quoted}, pg_temp")


def _serialise_sqlite(engine: sa.Engine, *, write: bool) -> None:
    """Include DDL in the transaction, which the driver would not do by itself; let writers wait for each other."""

    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        if write:
            _switch_to_wal(connection)

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN"))


def _switch_to_wal(connection: Any) -> None:
    """Switch to WAL; retry, because SQLite does not wait for a lock here."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _refuse_without_rights(database: Database) -> None:
    with database.short_engine() as engine, engine.connect() as connection:
        schema = database.schema or connection.scalar(sa.text("SELECT coalesce(current_schema(), 'public')"))
        refuse_without(connection, MIGRATOR, schema=schema)


def _retrying_locks(work: Callable[[], list[str]]) -> list[str]:
    for attempt in range(1, LOCK_TRIES + 1):
        try:
            return work()
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in ("55P03", "40P01"):
                raise
            if attempt == LOCK_TRIES:
                raise SchemaError(
                    f"another session held a lock on our tables through {LOCK_TRIES} tries of {LOCK_TIMEOUT_S:g} s; "
                    "see pg_stat_activity for a long transaction, end it, and run `outbox db upgrade` again"
                ) from error
            time.sleep(LOCK_PAUSE_S)
    raise AssertionError("unreachable")


def _current(connection: sa.Connection) -> tuple[str, ...]:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_heads()


def _is_newer(connection: sa.Connection, script: ScriptDirectory) -> bool:
    """Return whether a later release has migrated this database; then this release has nothing to do.

    Raises:
        SchemaError: The later schema refuses this release.
    """
    ours = {r.revision for r in script.walk_revisions()}
    if ours.issuperset(_current(connection)):
        return False
    check_schema(connection)
    return True


def _refuse_former_shape(connection: sa.Connection, database: Database) -> None:
    if any(revision.startswith("outbox_") for revision in _current(connection)):
        refuse_former_shape(connection, database.schema)


def _with_ancestors(script: ScriptDirectory, revisions: set[str]) -> set[str]:
    return {r.revision for head in revisions for r in script.iterate_revisions(head, "base")}
