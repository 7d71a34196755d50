"""`once`: a listener processes a message once, even if it is told several times, or by several callers at once."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from support.waiting import eventually
from support.writers import WAYS, Writer

from outbox import InvalidId, NoTransaction, once, once_async


@pytest.fixture(params=WAYS, ids=str)
def writer(request):
    return Writer(request.getfixturevalue(f"{request.param.kind}_database"), request.param)


@pytest.fixture
def in_thread():
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit


def a_session_waits(database):
    """Return whether a session waits for a lock. On SQLite that cannot be seen, and the order does not matter."""
    if database.kind == "sqlite":
        return True
    return database.scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )


async def test_once_is_true_the_first_time_and_false_every_other(writer):
    async with writer.transaction() as transaction:
        assert await transaction.once("reports", "m-1") is True
        assert await transaction.once("reports", "m-1") is False
    async with writer.transaction() as transaction:
        assert await transaction.once("reports", "m-1") is False


async def test_each_listener_does_each_message(writer):
    async with writer.transaction() as transaction:
        for listener in ("reports", "graphs"):
            for message_id in ("m-1", "m-2"):
                assert await transaction.once(listener, message_id)


async def test_a_rolled_back_mark_does_not_count(writer):
    class Stop(Exception):
        pass

    with suppress(Stop):
        async with writer.transaction() as transaction:
            assert await transaction.once("reports", "m-1")
            raise Stop
    async with writer.transaction() as transaction:
        with suppress(Stop):
            async with transaction.savepoint():
                assert await transaction.once("reports", "m-1")
                raise Stop
        assert await transaction.once("reports", "m-1")


async def test_a_uuid_and_its_text_are_one_message(writer):
    message_id = uuid4()
    async with writer.transaction() as transaction:
        assert await transaction.once("reports", message_id)
        assert not await transaction.once("reports", str(message_id))


async def test_an_autocommit_connection_is_refused(writer):
    with pytest.raises(NoTransaction):
        async with writer.transaction(isolation_level="AUTOCOMMIT") as transaction:
            await transaction.once("reports", "m-1")


@pytest.mark.parametrize(("listener", "message_id"), [("", "m"), ("l", ""), ("a\0", "m"), ("l", "\ud800")])
def test_names_that_cannot_be_stored_are_refused_and_the_transaction_goes_on(database, listener, message_id):
    with Session(database.engine) as session, session.begin():
        with pytest.raises(InvalidId, match="pass text"):
            once(session, listener, message_id)
        assert once(session, "l", "m")


@pytest.mark.parametrize("fate", ["commit", "rollback"])
def test_the_second_waits_for_the_firsts_transaction(database, in_thread, fate):
    started = threading.Event()

    def second():
        with Session(database.engine) as session, session.begin():
            started.set()
            return once(session, "reports", "m-1")

    with Session(database.engine) as session:
        assert once(session, "reports", "m-1")
        result = in_thread(second)
        assert started.wait(30)
        eventually(lambda: a_session_waits(database))
        assert not result.done() or database.kind == "sqlite"
        getattr(session, fate)()
    assert result.result(30) is (fate == "rollback")


@pytest.mark.parametrize("fate", ["commit", "rollback"])
async def test_an_async_second_waits_too(database, fate):
    engine = database.async_engine()

    async def second():
        async with AsyncSession(engine) as session, session.begin():
            return await once_async(session, "reports", "m-1")

    async with AsyncSession(engine) as session:
        assert await once_async(session, "reports", "m-1")
        result = asyncio.create_task(second())
        while not await asyncio.to_thread(a_session_waits, database):
            assert not result.done()
        await getattr(session, fate)()
    assert await result is (fate == "rollback")


def test_of_many_at_once_exactly_one_is_first(database):
    barrier = threading.Barrier(8)

    def attempt(_):
        with Session(database.engine) as session, session.begin():
            barrier.wait(30)
            return once(session, "reports", "m-1")

    with ThreadPoolExecutor(8) as executor:
        assert sorted(executor.map(attempt, range(8))) == [False] * 7 + [True]
