"""Provide the database of a benchmark: the given one, or a temporary PostgreSQL."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import sqlalchemy as sa
from psycopg import sql

sys.path.append(str(Path(__file__).parent.parent / "tests"))


@contextmanager
def database(url: str | None) -> Iterator[str]:
    """Yield the URL to work on: the given one, or that of a temporary server that is on disk and flushes it."""
    if url is not None:
        yield url
        return
    from support.postgres import PostgresServer

    server = PostgresServer({"fsync": "on", "shared_buffers": "512MB", "max_wal_size": "8GB"})
    server.start()
    try:
        yield server.url()
    finally:
        server.remove()


class Scratch:
    """Databases that are made for a measurement and dropped when it is over.

    Args:
        url: The URL of any database on a server where this role may create databases.
    """

    def __init__(self, url: str) -> None:
        self._admin = psycopg.connect(url, autocommit=True)
        self._server = sa.make_url(url)
        self._prefix = f"neverlost_bench_{secrets.token_hex(3)}"
        self._names: set[str] = set()

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._names):
            self._drop(name)
        self._admin.close()

    @property
    def server(self) -> str:
        """The server's version, as in ``PostgreSQL 15``."""
        return f"PostgreSQL {self._admin.info.server_version // 10_000}"

    def create(self, name: str, like: str | None = None) -> str:
        """Create a database, empty or a copy of another one, in place of one of the same name; return its URL."""
        full = f"{self._prefix}_{name}"
        self._drop(full)
        self._names.add(full)
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(full))
        if like is not None:
            statement += sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(f"{self._prefix}_{like}"))
        self._admin.execute(statement)
        return self._url(full)

    def urls(self) -> list[str]:
        """Return the URLs of all databases."""
        return [self._url(full) for full in sorted(self._names)]

    def _url(self, full: str) -> str:
        return self._server.set(database=full).render_as_string(hide_password=False)

    def drop(self, name: str) -> None:
        """Drop one database before the end."""
        self._drop(f"{self._prefix}_{name}")

    def _drop(self, full: str) -> None:
        self._admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(full)))
        self._names.discard(full)


def settle_down(url: str) -> None:
    """Do the work of autovacuum and the checkpointer before the measurement, and not during it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
