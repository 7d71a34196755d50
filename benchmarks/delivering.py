"""The common parts of the benchmarks of HTTP, RabbitMQ and Kafka: options, a backlog, and a relay that drains it."""

from __future__ import annotations

import argparse
import asyncio
import time

import sqlalchemy as sa

from outbox import emit_many
from relay.relay import Relay

DATA = {"contentId": "c-0197c2f0", "note": "x" * 150}


def parser(description: str | None, *, messages: int, per_round: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all these benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=messages, help=f"per round{per_round}")
    parser.add_argument("--json", action="store_true", help="print what each round measured, and judge nothing")
    return parser


def fill(database_url: str, type_: str, count: int) -> float:
    """Commit this number of messages; return the time just before the commit."""
    engine = sa.create_engine(sa.make_url(database_url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        for begin in range(0, count, 1000):
            emit_many(connection, [(type_, DATA)] * min(1000, count - begin))
        began_at = time.perf_counter()
    engine.dispose()
    return began_at


async def drained(relay: Relay, count: int) -> int:
    """Have a relay deliver and settle this number of committed messages; return how many it delivered."""
    delivered = 0
    while delivered < count:
        delivered += (await relay.drain(look=False)).delivered
        await asyncio.sleep(0)
    return delivered
