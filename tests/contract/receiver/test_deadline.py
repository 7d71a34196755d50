"""A handler that hangs: its caller gets an answer, and the handler's changes are undone."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from support.databases import Database
from support.receiving import SECRET
from support.serving import calling
from support.waiting import eventually_async

from listeners.http import Limits, Receiver
from outbox import Message
from relay.databases.database import Database as Parsed
from relay.destinations.listener.destination import ListenerDestination

WRITE = sa.text("INSERT INTO contents (id, title, source, media_type, sha256) VALUES ('written', 't', 's', 'm', :sha)")
SHA = {"sha": "0" * 64}
TIMEOUT_S = 1.0  # a call that does not hang takes less, unless the machine stands still


class Hanging:
    """A plain handler that writes, and then hangs until the test releases it. Its second call does not hang."""

    def __init__(self) -> None:
        self.attempts = 0
        self.go = threading.Event()

    def __call__(self, message: Message, session: Session) -> None:
        self.attempts += 1
        session.execute(WRITE, SHA)
        if self.attempts == 1:
            self.go.wait()


class AsyncHanging:
    """The same as an async handler that is never released."""

    def __init__(self) -> None:
        self.attempts = 0

    async def __call__(self, message: Message, session: AsyncSession) -> None:
        self.attempts += 1
        await session.execute(WRITE, SHA)
        if self.attempts == 1:
            await asyncio.Event().wait()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    handler = Hanging()
    yield handler
    handler.go.set()  # no thread is left behind, even if the test fails


def receiver(handler: Callable[..., object], database: Database, timeout_s: float | None = TIMEOUT_S) -> Receiver:
    return Receiver([SECRET], handler=handler, database=database.url, limits=Limits(handler_timeout_s=timeout_s))


async def post(client: httpx.AsyncClient) -> httpx.Response:
    headers = {"X-Internal-Secret": SECRET, "webhook-id": "m-1"}
    return await client.post("/extraction/internal/completed", json={"contentId": "c"}, headers=headers)


def done(database: Database) -> tuple[int, int]:
    return (
        int(database.scalar("SELECT count(*) FROM contents")),
        int(database.scalar("SELECT count(*) FROM inbox_message")),
    )


async def test_a_plain_handler_that_overran_commits_nothing_even_if_it_comes_to_its_end(
    database: Database, hanging: Hanging
) -> None:
    async with calling(receiver(hanging, database)) as client:
        first = await post(client)
        after_the_first = done(database)
        hanging.go.set()
        # Whether or not the first call has ended by now, the second is made only if the first left no mark.
        await eventually_async(lambda: _is_taken(client))
    assert (first.status_code, first.json()["reason"]) == (500, "handler_timeout")
    assert after_the_first == (0, 0)
    assert hanging.attempts >= 2  # more, if the machine stood still during the second call
    assert done(database) == (1, 1)


async def test_an_async_handler_that_overran_is_cancelled_and_rolled_back_before_its_caller_is_answered(
    database: Database,
) -> None:
    handler = AsyncHanging()
    async with calling(receiver(handler, database)) as client:
        assert (await post(client)).json()["reason"] == "handler_timeout"
        assert done(database) == (0, 0)
        await eventually_async(lambda: _is_taken(client))
    assert handler.attempts >= 2
    assert done(database) == (1, 1)


async def test_the_server_ends_what_hangs_in_a_transaction_so_that_the_sender_can_come_again(
    postgres_database: Database, hanging: Hanging
) -> None:
    async with calling(receiver(hanging, postgres_database)) as client:
        assert (await post(client)).status_code == 500
        await eventually_async(lambda: _is_taken(client))  # while the first call still hangs
        assert not hanging.go.is_set()
        hanging.go.set()
    assert done(postgres_database) == (1, 1)


async def test_a_shorter_limit_of_the_database_is_kept(postgres_database: Database) -> None:
    seen: list[tuple[str, str]] = []
    names = "current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')"

    def look(message: Message, session: Session) -> None:
        seen.append(tuple(session.execute(sa.text(f"SELECT {names}")).one()))  # type: ignore[arg-type]

    name = postgres_database.scalar("SELECT current_database()")
    postgres_database.execute(f"ALTER DATABASE \"{name}\" SET statement_timeout = '2s'")
    async with calling(receiver(look, postgres_database, 30)) as client:
        assert (await post(client)).status_code == 200
    assert seen == [("2s", "30s")]


async def test_a_handler_may_take_as_long_as_it_takes_where_it_is_allowed_to(
    database: Database, hanging: Hanging
) -> None:
    async with calling(receiver(hanging, database, None)) as client:
        answer = asyncio.ensure_future(post(client))
        await eventually_async(lambda: hanging.attempts == 1)
        hanging.go.set()
        assert (await answer).status_code == 200


async def test_what_is_committing_at_the_deadline_is_waited_for(sqlite_database: Database) -> None:
    """The deadline comes between the last look at the gate and the end of the commit."""
    is_committing, go = threading.Event(), threading.Event()

    def write(message: Message, session: Session) -> None:
        session.execute(WRITE, SHA)

        @sa.event.listens_for(session, "before_commit")
        def _slowly(_: Session) -> None:
            is_committing.set()
            go.wait()

    runner = ListenerDestination("http", write, database=Parsed.parse(sqlite_database.url))
    message = Message("m-1", "extraction.completed", "test", None, None, "{}", "{}", "2026-01-01")
    call = asyncio.ensure_future(runner.call(message, 3.0))  # enough to begin the commit on a busy machine, too
    await eventually_async(is_committing.is_set)
    done_early, _ = await asyncio.wait([call], timeout=3.2)  # well beyond its deadline
    go.set()
    await call
    await runner.close()
    assert not done_early
    assert done(sqlite_database) == (1, 1)


async def _is_taken(client: httpx.AsyncClient) -> bool:
    return (await post(client)).status_code == 200
