"""How fast a relay drains a backlog into a listener that does nothing, beside the bare loop of the same statements.

    python -m benchmarks.drain [--database-url URL] [--messages 200000] [--rounds 5]

Interleaved: each round runs every line once. The **floor** is one thread that reads a page and settles it with the
relay's own statements: no owner, no event loop, no listener. Rates wander on a shared machine; the ratios count.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
import structlog
from rich.console import Console
from rich.table import Table

from benchmarks.postgres import database
from outbox import Message
from relay.database import Database
from relay.migrations import downgrade, upgrade
from relay.relay import Relay
from relay.settings import ListenerSettings, Settings
from relay.store.contract import Cursors
from relay.store.postgres import PostgresStore

PAD = 190  # makes a payload of 200 bytes


def main() -> int:
    options = _options()
    logging.disable(logging.WARNING)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sys.setswitchinterval(0.0005)
    with database(options.database_url) as url, tempfile.TemporaryDirectory() as folder:
        sqlite = f"sqlite:///{Path(folder) / 'outbox.db'}"
        lines: dict[str, Callable[[], float]] = {
            "floor: the bare loop": lambda: _floor(url, options.messages),
            "relay, no keys": lambda: _relay(url, options.messages, "NULL"),
            "relay, 5,000 keys": lambda: _relay(url, options.messages, "'k' || mod(n, 5000)"),
            "relay, one hot key": lambda: _relay(url, options.messages // 10, "'k'"),
            "relay, SQLite": lambda: _relay(sqlite, options.messages // 2, "NULL"),
        }
        rates: dict[str, list[float]] = {name: [] for name in lines}
        for _ in range(options.rounds):
            for name, run in lines.items():
                rates[name].append(run())
    _print({name: statistics.median(values) for name, values in rates.items()})
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", help="a database of this run's own: its outbox is dropped and made anew")
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _fill(url: str, messages: int, key: str) -> None:
    """A fresh outbox with so many ready messages, written in SQL."""
    db = Database.parse(url)
    if db.is_postgres or db.path.exists():
        downgrade(url, only="outbox") if _exists(db) else None
    upgrade(url, only="outbox")
    engine = db.engine(poolclass=sa.NullPool)
    with engine.begin() as connection:
        if db.is_postgres:
            connection.exec_driver_sql(
                "INSERT INTO outbox_message (id, type, source, ordering_key, data) "
                f"SELECT outbox_uuid7(), 'bench.drain', 'bench', {key}, jsonb_build_object('pad', repeat('x', {PAD})) "
                f"FROM generate_series(1, {messages}) AS n"
            )
        else:
            connection.exec_driver_sql(
                f"WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {messages}) "
                "INSERT INTO outbox_message (id, type, source, ordering_key, data) "
                f"SELECT printf('%08x-0000-7000-8000-%012x', n, n), 'bench.drain', 'bench', {key}, "
                f"json_object('pad', hex(zeroblob({PAD // 2}))) FROM s"
            )
    if db.is_postgres:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE outbox_message")
            connection.exec_driver_sql("CHECKPOINT")


def _exists(db: Database) -> bool:
    engine = db.engine(poolclass=sa.NullPool)
    with engine.connect() as connection:
        return sa.inspect(connection).has_table("outbox_message")


def _floor(url: str, messages: int) -> float:
    _fill(url, messages, "NULL")
    session = PostgresStore(Database.parse(url), lease_s=15, keep_history=True, notify=True).open("floor")
    cursors = Cursors()
    cursors.ready = dict.fromkeys(session.take(range(64), []), 0)
    settled = 0
    began = time.perf_counter()
    while settled < messages:
        page = session.read_ready(cursors, 1000)
        settled += session.settle_plain([(row[0], row[3]) for row in page.messages], durable=False)
    rate = messages / (time.perf_counter() - began)
    session.close()
    return rate


def _relay(url: str, messages: int, key: str) -> float:
    _fill(url, messages, key)
    gc.collect()
    gc.freeze()
    return asyncio.run(_drain(url, messages))


async def _drain(url: str, messages: int) -> float:
    taken = 0

    async def listener(message: Message) -> None:
        nonlocal taken
        taken += 1

    settings = Settings(
        database_url=url,
        destinations={"nothing": ListenerSettings(listener=listener, timeout_s=None)},
        health_port=0,
    )
    async with Relay(settings) as relay:
        began = time.perf_counter()
        await relay.drain()
        rate = messages / (time.perf_counter() - began)
    assert taken == messages, f"{taken} of {messages} were delivered"
    return rate


def _print(medians: dict[str, float]) -> None:
    table = Table("", "messages/s", "of the floor", box=None, header_style="bold")
    floor = next(iter(medians.values()))
    for name, rate in medians.items():
        table.add_row(name, f"{rate:,.0f}", f"{rate / floor:.2f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
