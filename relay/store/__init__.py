"""The SQL that differs between databases, and all SQL of the relay's hot path; this module chooses the database's.

Each database has a folder with its store (see `relay.store.contract`), and with `operators`, which is what operators'
queries and housekeeping need of it (see `relay.store.dialect`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from relay.store.contract import Store
    from relay.store.dialect import Dialect


def open_store(settings: Settings) -> Store:
    """Return the store for the configured database."""
    database, keep_history = settings.database, settings.retention_days > 0
    if database.is_postgres:
        from relay.store.postgres.session import PostgresStore

        return PostgresStore(database, lease_s=settings.lease_s, keep_history=keep_history, notify=settings.notify)
    from relay.store.sqlite.session import SqliteStore

    return SqliteStore(database, keep_history=keep_history)


def dialect_of(bind: sa.Connection | sa.Engine) -> Dialect:
    """Return what operators' queries and housekeeping need of the database of a connection."""
    if bind.dialect.name == "postgresql":
        from relay.store.postgres import operators as on_postgres

        return on_postgres
    from relay.store.sqlite import operators as on_sqlite

    return on_sqlite
