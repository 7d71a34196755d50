"""faststream-outbox: claims of 500, deletes of 100, one worker (a second one would only compete for the processor)."""

from __future__ import annotations

from contestant import Contestant, main
from faststream_outbox import OutboxBroker, make_outbox_table
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

WORKERS = 1


async def prepare(url: str) -> None:
    metadata = MetaData()
    make_outbox_table(metadata, table_name="outbox")
    engine = create_async_engine(_asyncpg(url))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()


async def work(url: str, contestant: Contestant) -> None:
    engine = create_async_engine(_asyncpg(url), pool_size=WORKERS + 4)
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData(), table_name="outbox"), logger=None)

    @broker.subscriber(
        "noop",
        max_workers=WORKERS,
        fetch_batch_size=500,
        terminal_flush_batch_size=100,
        min_fetch_interval=0.05,
        max_fetch_interval=0.05,
    )
    async def handle(body: dict[str, str]) -> None:
        contestant.handle()

    client = broker.client
    client.fetch = contestant.timing(client.fetch)
    contestant.begin()
    async with broker:
        await contestant.all_handled.wait()
    await engine.dispose()


def _asyncpg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


if __name__ == "__main__":
    main(prepare, work, uvloop=True)
