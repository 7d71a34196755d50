"""Run the migrations: on the connection that `relay.databases.migrations` passes, or on the configured database.

There are two branches, `outbox` and `content`, with a separate version table. So a host application's Alembic history
in the same database is never touched.
"""

from __future__ import annotations

from contextlib import nullcontext

import sqlalchemy as sa
from alembic import context

from outbox import own_packages
from outbox.tables import VERSION_TABLE, tables

# Alembic executes this file, so an import of a package whose name the host uses, too, would find the host's package.
dialects = own_packages.load("relay.databases.dialect")
config = context.config
schema: str | None = config.attributes.get("schema")
TARGET = [tables().metadata, own_packages.load("listeners.tables").ContentBase.metadata]


def configure(**options: object) -> None:
    context.configure(target_metadata=TARGET, version_table=VERSION_TABLE, **options)  # type: ignore[arg-type]


def run_offline() -> None:
    """Print the SQL instead of running it: for psql, or without BEGIN and COMMIT for a host's own revision."""
    # "named", because in the driver's own style Alembic would print every % twice
    dialect = config.attributes.get("dialect", "postgresql")
    configure(dialect_name=dialect, literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction(), dialects.dialect_named(dialect).on_path(context, schema):
        context.run_migrations()


def run_online(connection: sa.Connection, *, is_prepared: bool) -> None:
    configure(connection=connection, transaction_per_migration=False)
    on_path = nullcontext() if is_prepared else dialects.dialect_of(connection).on_path(context, schema)
    with context.begin_transaction(), on_path:
        context.run_migrations()


def own_connection() -> tuple[sa.Connection, str | None]:
    """Return a connection to the configured database, and the schema."""
    settings = own_packages.load("relay.settings").load(destinations=False)
    return settings.database.engine(poolclass=sa.NullPool).connect(), settings.schema_name


if context.is_offline_mode():
    run_offline()
elif connection := config.attributes.get("connection"):
    run_online(connection, is_prepared=True)
else:
    connection, schema = own_connection()
    with connection:
        run_online(connection, is_prepared=False)
