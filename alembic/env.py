"""Run the migrations: on the connection that `relay.platform.migrations` passes, or on the configured database.

There are two branches, `outbox` and `content`, with a version table of their own. So a host application's Alembic
history in the same database is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import sqlalchemy as sa
from alembic import context

from listeners.tables import ContentBase
from outbox.tables import VERSION_TABLE, tables

config = context.config
schema: str | None = config.attributes.get("schema")
TARGET = [tables().metadata, ContentBase.metadata]
WITHIN_A_REVISION = "-- In your own revision, leave out BEGIN and COMMIT: they would end its transaction."


def configure(**options: object) -> None:
    context.configure(target_metadata=TARGET, version_table=VERSION_TABLE, **options)  # type: ignore[arg-type]


def run_offline() -> None:
    """Print the SQL instead of running it: for psql, or without BEGIN and COMMIT for a host's own revision."""
    # "named": in the driver's own style, Alembic would print every % twice
    dialect = config.attributes.get("dialect", "postgresql")
    configure(dialect_name=dialect, literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        if dialect == "postgresql":
            context.get_context().impl.static_output(WITHIN_A_REVISION)
        with search_path_of(schema) if dialect == "postgresql" else nullcontext():
            context.run_migrations()


@contextmanager
def search_path_of(schema: str | None) -> Iterator[None]:
    """Set the path that functions are to pin, and restore it afterwards: a host's revision may continue.

    pg_temp comes last. Otherwise it is searched first, and a caller's temporary table could replace one of our tables.
    """
    context.execute("SELECT set_config('outbox.search_path', current_setting('search_path'), false)")
    if schema is None:
        context.execute("SELECT set_config('search_path', current_setting('search_path') || ', pg_temp', false)")
    else:
        quoted = '"' + schema.replace('"', '""') + '"'
        context.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted}")
        context.execute(f"SET search_path TO {quoted}, pg_temp")
    yield
    context.execute("SELECT set_config('search_path', current_setting('outbox.search_path'), false)")


def run_online(connection: sa.Connection, *, is_prepared: bool) -> None:
    configure(connection=connection, transaction_per_migration=False)
    is_ours_to_set = connection.dialect.name == "postgresql" and not is_prepared
    with context.begin_transaction(), search_path_of(schema) if is_ours_to_set else nullcontext():
        context.run_migrations()


def own_connection() -> tuple[sa.Connection, str | None]:
    """Return a connection to the configured database, and the schema."""
    from relay.settings import load

    settings = load(destinations=False)
    return settings.database.engine(poolclass=sa.NullPool).connect(), settings.schema_name


if context.is_offline_mode():
    run_offline()
elif connection := config.attributes.get("connection"):
    run_online(connection, is_prepared=True)
else:
    connection, schema = own_connection()
    with connection:
        run_online(connection, is_prepared=False)
