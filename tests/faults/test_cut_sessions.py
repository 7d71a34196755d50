"""The owning session ended by the server at every point of its life: nothing is lost, and nothing is done twice."""

import asyncio
import random

from sqlalchemy import make_url
from support.databases import Database
from support.fleet import end_owning_sessions
from support.reckoning import BOTH, assert_everything_happened_once, prepared, unsettled
from support.scene import Scene, to
from support.waiting import eventually, eventually_async
from support.wire import Wire, url_through

from outbox import Message

SEED = 1_848
BEGINNING = 28  # about as many round trips as it takes to open a session


def test_a_session_that_ends_before_any_of_its_statements_costs_nothing(postgres_database, fleet):
    """Sessions are ended one after another, each before another of its statements, early and late ones in turn."""
    chance = random.Random(SEED)
    points = [n for _ in range(15) for n in (chance.randrange(1, BEGINNING), chance.randrange(BEGINNING, 250))]

    def cut(session: int, statement: int) -> None:
        if session <= len(points) and statement == points[session - 1]:
            end_owning_sessions(postgres_database.url)

    wire = Wire(make_url(postgres_database.url).port, before=cut)
    try:
        workload = prepared(postgres_database, SEED)
        fleet.configure(
            url_through(wire, postgres_database), destinations=BOTH, work_s=0.002, beat_s=0.1, page_size=20, window=40
        )
        fleet.start()

        def is_through() -> bool:
            if unsettled(postgres_database) < 100:
                workload.commit(20)
            return wire.owning_count > len(points)

        eventually(is_through, deadline_s=120, what=f"{len(points)} sessions have ended")
        eventually(lambda: unsettled(postgres_database) == 0, deadline_s=30, what="everything is settled")
        assert_everything_happened_once(postgres_database, fleet, workload)
    finally:
        wire.close()


async def test_a_drain_whose_session_ends_on_the_way_goes_on_with_the_next(postgres_database: Database) -> None:
    """The length of the drain does not matter: only the time without a session counts."""
    scene = Scene(postgres_database)
    scene.emit(400)
    taken = 0

    async def slow(message: Message) -> None:
        nonlocal taken
        await asyncio.sleep(0.2)
        taken += 1

    async with scene.relay({"a": to(slow, concurrency=16)}, beat_s=1) as relay:
        drain = asyncio.create_task(relay.drain())
        await eventually_async(lambda: taken >= 260)  # longer than a drain waits for a session
        await asyncio.to_thread(end_owning_sessions, postgres_database.url)
        drained = await drain
    assert drained.reason is None
    assert scene.account == (400, 0, 0, 0)
