"""txoutbox: no ordering lock (nothing has a key), delivered rows deleted, batches of 500, no deadline per publish."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
from contestant import Contestant, main
from txoutbox import OutboxMessage, Relay, RelayConfig
from txoutbox.adapters.postgres import PostgresStorage

BATCH = 500


async def prepare(url: str) -> None:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        await PostgresStorage(pool).create_schema()


async def work(url: str, contestant: Contestant) -> None:
    async with asyncpg.create_pool(url, min_size=2, max_size=2) as pool:
        storage = PostgresStorage(pool, strict_ordering=False, delete_on_ack=True)
        storage.claim = contestant.timing(storage.claim)

        async def publish(message: OutboxMessage) -> None:
            contestant.handle()
            if contestant.handled == contestant.count:
                relay.stop()

        config = RelayConfig(
            batch_size=BATCH, concurrency=BATCH, publish_timeout=None, lease=timedelta(minutes=5), poll_max=0.05
        )
        relay = Relay(storage, publish, config=config)
        contestant.begin()
        await relay.run()


if __name__ == "__main__":
    main(prepare, work, uvloop=True)
