"""All SQL of the relay's hot path: one contract, and one implementation per database beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.settings import Settings

if TYPE_CHECKING:
    from relay.store.contract import Store


def open_store(settings: Settings) -> Store:
    """Return the store for the configured database."""
    database, keep_history = settings.database, settings.retention_days > 0
    if database.is_postgres:
        from relay.store.postgres.session import PostgresStore

        return PostgresStore(database, lease_s=settings.lease_s, keep_history=keep_history, notify=settings.notify)
    from relay.store.sqlite.session import SqliteStore

    return SqliteStore(database, keep_history=keep_history)
