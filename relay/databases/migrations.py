"""Run the Alembic migrations: from a checkout, or from the copy in the wheel."""

from __future__ import annotations

import io
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
from relay.databases.database import Database
from relay.databases.dialect import dialect_of
from relay.databases.rights import MAY_RUN, MIGRATOR
from relay.databases.schema import check_schema

BRANCHES = ("outbox", "content")
LOCK_TIMEOUT_S = 2.0
LOCK_TRIES = 20
LOCK_PAUSE_S = 1.0  # in this time, sessions that waited behind us get the lock


def upgrade(url: str, *, schema: str | None = None, only: str | None = None) -> list[str]:
    """Bring a database to the newest schema; safe to run from many processes at once.

    Args:
        url: The database. An SQLite file is created when it does not exist.
        schema: The PostgreSQL schema of the outbox, created if it does not exist.
        only: ``"outbox"`` or ``"content"``: leave the other branch alone.

    Returns:
        The revisions that were applied, in order; empty when there was nothing to do.

    Raises:
        SchemaError: A lock could not be taken, an object with one of our names exists and is not ours, or another role
            was granted CREATE in the schema in which our tables would be created.
        Unusable: The role lacks a right.
    """
    database = Database.parse(url, schema=schema)
    target = f"{only}@head" if only else "heads"

    def up(config: Config) -> None:
        _refuse_creators(config.attributes["connection"])
        command.upgrade(config, target)

    try:
        return _retrying_locks(database, up)
    except sa.exc.DBAPIError as error:
        if database.dialect.obstacle(error) == "denied":
            _refuse_without_rights(database)
        raise


def planned(database: Database, *, only: str | None = None) -> list[str]:
    """Return the revisions that ``upgrade`` would apply, in order.

    Raises:
        SchemaError: ``upgrade`` would refuse: another role was granted CREATE.
    """
    with _connect(database) as connection:
        _refuse_creators(connection)
        return _pending(connection, only)


def _refuse_creators(connection: sa.Connection) -> None:
    """Refuse a schema in which a role was granted CREATE, before our tables are created there."""
    if _current(connection):
        return
    found = dialect_of(connection).others_that_create(connection)
    if found is not None and not found.is_default:
        raise SchemaError(f"{found}, so nothing was changed: {MAY_RUN}. Run {found.remedy}")


def pending(database: Database, *, only: str | None = None) -> list[str]:
    """Return the revisions that ``upgrade`` would apply, in order."""
    with _connect(database) as connection:
        return _pending(connection, only)


def _pending(connection: sa.Connection, only: str | None) -> list[str]:
    current = set(_current(connection))
    script = ScriptDirectory.from_config(_config())
    if _is_newer(connection, script):
        return []
    wanted = [only] if only else BRANCHES
    revisions = [r for branch in wanted for r in reversed([*script.iterate_revisions(f"{branch}@head", "base")])]
    return [r.revision for r in revisions if r.revision not in _with_ancestors(script, current)]


def sql(dialect: str = "postgresql", *, schema: str | None = None, only: str | None = None) -> str:
    """Return the migrations as SQL, to read, to hand over, or to paste into your own revision.

    Args:
        dialect: SQLAlchemy's name of the database.
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
        config = _config()
        if _is_newer(connection, ScriptDirectory.from_config(config)):
            return []
        config.attributes.update(connection=connection, schema=database.schema)
        try:
            work(config)
        except sa.exc.DBAPIError as error:
            if database.dialect.obstacle(error) != "taken":
                raise
            raise _taken(error) from error
        script = ScriptDirectory.from_config(config)
        done = _with_ancestors(script, set(_current(connection))) - _with_ancestors(script, set(before))
        return sorted(done)


def _taken(error: sa.exc.DBAPIError) -> SchemaError:
    """Return an error that names the object of another application."""
    said = " ".join(str(error.orig).split())
    return SchemaError(
        f"{said}: the outbox did not create it, so nothing was changed. Set OUTBOX_SCHEMA to give the outbox a schema "
        "of its own (on SQLite: a file), or rename it. To keep content tables of your own and install only the outbox, "
        "run: outbox db upgrade --only outbox"
    )


@contextmanager
def _connect(database: Database, *, write: bool = False) -> Iterator[sa.Connection]:
    with (
        database.short_engine() as engine,
        database.dialect.migrating(engine, database.schema, write=write, lock_timeout_s=LOCK_TIMEOUT_S) as connection,
    ):
        yield connection


def _refuse_without_rights(database: Database) -> None:
    with database.short_engine() as engine, engine.connect() as connection:
        schema = database.schema or sa.inspect(connection).default_schema_name or "public"
        dialect_of(connection).refuse_without(connection, MIGRATOR, schema=schema)


def _retrying_locks(database: Database, work: Callable[[Config], None]) -> list[str]:
    for attempt in range(1, LOCK_TRIES + 1):
        try:
            return _run(database, work)
        except sa.exc.OperationalError as error:
            if database.dialect.obstacle(error) != "locked":
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


def _with_ancestors(script: ScriptDirectory, revisions: set[str]) -> set[str]:
    return {r.revision for head in revisions for r in script.iterate_revisions(head, "base")}
