"""Empty an outbox between two tests."""

from __future__ import annotations

import sqlalchemy as sa

from outbox.errors import OutboxError
from outbox.tables import tables


def empty(database: str | sa.URL | sa.Engine | sa.Connection, *, schema: str | None = None) -> None:
    """Delete every message, delivery, destination and inbox mark: the outbox is as new after its migration.

    Args:
        database: A URL, an engine, or a connection. With a connection, its transaction is used. For an asynchronous
            connection write ``await connection.run_sync(empty)``.
        schema: The PostgreSQL schema of the outbox.

    Raises:
        OutboxError: ``database`` is none of these.
    """
    if isinstance(database, str | sa.URL):
        engine = sa.create_engine(database, poolclass=sa.NullPool)
        with engine.begin() as connection:
            _empty(connection, schema)
    elif isinstance(database, sa.Engine):
        with database.begin() as connection:
            _empty(connection, schema)
    elif isinstance(database, sa.Connection):
        _empty(database, schema)
    else:
        raise OutboxError(
            f"{type(database).__name__} cannot be emptied: pass a URL, an Engine or a Connection; with an asynchronous "
            "connection, write await connection.run_sync(empty)"
        )


def _empty(connection: sa.Connection, schema: str | None) -> None:
    ours = tables(schema)
    kept = (ours.meta, ours.shard, ours.turn)
    for table in ours.metadata.tables.values():
        if table not in kept:
            connection.execute(table.delete())
    connection.execute(ours.shard.update().values(dirty=False, owner=None, started=sa.null()))
