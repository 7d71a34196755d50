"""pgqueuer: batches of 200, on asyncpg and uvloop."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
from contestant import Contestant, main
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

BATCH = 200


async def prepare(url: str) -> None:
    connection = await asyncpg.connect(url)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


async def work(url: str, contestant: Contestant) -> None:
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

    @queuer.entrypoint("noop")
    async def handle(job: Job) -> None:
        contestant.handle()

    queries = queuer.qm.queries
    queries.dequeue = contestant.timing(queries.dequeue)
    contestant.begin()
    running = asyncio.create_task(queuer.qm.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=0.05)))
    await contestant.all_handled.wait()
    queuer.qm.shutdown.set()
    await running


if __name__ == "__main__":
    main(prepare, work, uvloop=True)
