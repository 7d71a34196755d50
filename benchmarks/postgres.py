"""The database a benchmark runs against: the one it is told, or a PostgreSQL of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))


@contextmanager
def database(url: str | None) -> Iterator[str]:
    """A URL to work on; without one, of a server that lives on disk, flushes it, and is gone afterwards."""
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
