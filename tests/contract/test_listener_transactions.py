"""A listener's session: only the destination ends its transaction, and a conflict in it is tried again."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from support.databases import Database
from support.waiting import eventually_async

from outbox import Message, Reject, TransactionHeld
from relay.databases.database import Database as Parsed
from relay.decide.outcome import Outcome
from relay.destinations.listener.destination import ListenerDestination

INSERT = text("INSERT INTO effect (n) VALUES (:n)")


@pytest.fixture
def effects(database: Database) -> Database:
    database.execute("CREATE TABLE effect (n integer PRIMARY KEY)")
    return database


class Base(DeclarativeBase):
    pass


class Effect(Base):
    __tablename__ = "effect"
    n: Mapped[int] = mapped_column(primary_key=True)


class Desk:
    """Runs a listener on one message, as a relay would, or as `outbox serve` and `outbox consume` do."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.says = ""

    async def send(self, listener: Any, id: str = "m-1", timeout_s: float | None = 30) -> str:
        return (await self.send_each(listener, [id], timeout_s))[0]

    async def send_each(self, listener: Any, ids: list[str], timeout_s: float | None = 30) -> list[str]:
        async with self._destination(listener, timeout_s) as destination:
            outcomes: list[Outcome] = [await destination.send(message(id)) for id in ids]
        self.says = outcomes[-1].reason
        return [outcome.kind for outcome in outcomes]

    async def call_within(self, listener: Any, id: str = "m-1") -> None:
        async with self._destination(listener, None) as destination:
            await destination.call(message(id), 30)

    @contextlib.asynccontextmanager
    async def _destination(self, listener: Any, timeout_s: float | None) -> AsyncIterator[ListenerDestination]:
        parsed = Parsed.parse(self.database.url)
        destination = ListenerDestination("desk", listener, database=parsed, concurrency=2, timeout_s=timeout_s)
        try:
            yield destination
        finally:
            await destination.close()

    @property
    def done(self) -> tuple[list[int], int]:
        """The effects, and the number of inbox marks."""
        rows = self.database.rows("SELECT n FROM effect ORDER BY n")
        return [row.n for row in rows], self.database.scalar("SELECT count(*) FROM inbox_message")


@pytest.fixture
def desk(effects: Database) -> Desk:
    return Desk(effects)


def message(id: str) -> Message:
    return Message(id, "page.read", "test", None, None, '{"n": 1}', "{}", "2026-01-01")


# ------------------------------------------------------------------------------------------- the end is not theirs


def commit(session: Session) -> None:
    session.commit()


def rollback(session: Session) -> None:
    session.rollback()


def close(session: Session) -> None:
    session.close()


def reset(session: Session) -> None:
    session.reset()


def leave(session: Session) -> None:
    with session:
        pass


def commit_the_transaction(session: Session) -> None:
    transaction = session.get_transaction()
    assert transaction is not None
    transaction.commit()


def commit_the_connection(session: Session) -> None:
    session.connection().commit()


def commit_in_a_savepoint(session: Session) -> None:
    with session.begin_nested():
        session.commit()


def commit_in_sql(session: Session) -> None:
    session.execute(text(" commit"))


def rollback_in_sql(session: Session) -> None:
    session.execute(text("ROLLBACK"))


REFUSED_AT_ONCE = [
    commit,
    rollback,
    close,
    reset,
    leave,
    commit_the_transaction,
    commit_the_connection,
    commit_in_a_savepoint,
    commit_in_sql,
    rollback_in_sql,
]


def roll_back_the_transaction(session: Session) -> None:
    transaction = session.get_transaction()
    assert transaction is not None
    transaction.rollback()


def roll_back_the_connection(session: Session) -> None:
    session.connection().rollback()


def roll_back_the_driver(session: Session) -> None:
    session.connection().connection.rollback()


ROLLED_BACK = [roll_back_the_transaction, roll_back_the_connection, roll_back_the_driver]


def listeners(end: Callable[[Session], None]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the same listener, plain and async: it writes, ends the transaction, and goes on."""

    def listener(message: Message, session: Session) -> None:
        session.execute(INSERT, {"n": 1})
        end(session)

    async def async_listener(message: Message, session: AsyncSession) -> None:
        await session.execute(INSERT, {"n": 1})
        await session.run_sync(end)

    return listener, async_listener


COLOURS = pytest.mark.parametrize("colour", [0, 1], ids=["Session", "AsyncSession"])


@COLOURS
@pytest.mark.parametrize("end", REFUSED_AT_ONCE)
async def test_a_listener_cannot_end_its_transaction_and_the_refusal_costs_nothing(
    desk: Desk, end: Callable[[Session], None], colour: int
) -> None:
    seen: list[str] = []

    def try_to(session: Session) -> None:
        try:
            end(session)
        except TransactionHeld as error:
            seen.append(str(error))
            raise

    assert await desk.send(listeners(try_to)[colour]) == "failed"
    assert desk.done == ([], 0)
    assert "leave that to its caller" in seen[0]
    assert "try_to" not in seen[0]
    assert "listener" in seen[0]


@COLOURS
@pytest.mark.parametrize("end", ROLLED_BACK)
async def test_a_listener_that_rolled_back_and_returned_has_not_taken_the_message(
    desk: Desk, end: Callable[[Session], None], colour: int
) -> None:
    assert await desk.send(listeners(end)[colour]) == "failed"
    assert "transaction of its session" in desk.says
    assert desk.done == ([], 0)


@COLOURS
@pytest.mark.parametrize("end", [*REFUSED_AT_ONCE, *ROLLED_BACK])
async def test_nothing_of_a_refused_call_is_committed_with_the_next_one(
    desk: Desk, end: Callable[[Session], None], colour: int
) -> None:
    """Both insert the same row, over the same connection."""
    ends = iter([end, lambda _: None])
    listener = listeners(lambda session: next(ends)(session))[colour]
    assert await desk.send_each(listener, ["m-1", "m-2"]) == ["failed", "taken"]
    assert desk.done == ([1], 1)


def commit_the_driver(session: Session) -> None:
    session.connection().connection.commit()


def commit_on_a_raw_cursor(session: Session) -> None:
    session.connection().connection.cursor().execute("COMMIT")


def commit_the_innermost(session: Session) -> None:
    """Commit the connection that the pool holds: a wrapper of the driver's own one, if that is asynchronous."""
    raw: Any = session.connection().connection.dbapi_connection
    raw.commit()


COMMITTED = [commit_the_driver, commit_on_a_raw_cursor, commit_the_innermost]


@COLOURS
@pytest.mark.parametrize("end", COMMITTED)
@pytest.mark.parametrize("returns", [False, True], ids=["raises", "returns"])
async def test_a_commit_over_the_drivers_connection_is_refused_and_loses_nothing(
    desk: Desk, end: Callable[[Session], None], colour: int, returns: bool
) -> None:
    """Such a commit cannot be prevented, and it includes the inbox mark. The call has to be repeated all the same."""
    calls: list[int] = []

    def halves(session: Session) -> None:
        calls.append(1)
        if len(calls) == 1:
            end(session)
        session.execute(text("INSERT INTO effect (n) VALUES (2)"))
        if len(calls) == 1 and not returns:
            raise ValueError("the second half fails")

    def first(session: Session) -> None:
        session.execute(text("DELETE FROM effect"))  # what was committed too early stays
        session.execute(INSERT, {"n": 1})
        halves(session)

    def listener(message: Message, session: Session) -> None:
        first(session)

    async def async_listener(message: Message, session: AsyncSession) -> None:
        await session.run_sync(first)

    chosen = [listener, async_listener][colour]
    assert await desk.send(chosen) == "failed"
    assert "has committed the transaction of its session over the driver's connection" in desk.says
    assert desk.done == ([1], 0)
    assert await desk.send(chosen) == "taken"
    assert desk.done == ([1, 2], 1)


@COLOURS
@pytest.mark.parametrize("end", ROLLED_BACK)
async def test_a_listener_that_rolled_back_and_went_on_has_not_taken_the_message(
    desk: Desk, end: Callable[[Session], None], colour: int
) -> None:
    def go_on(session: Session) -> None:
        end(session)
        session.execute(text("INSERT INTO effect (n) VALUES (2)"))

    assert await desk.send(listeners(go_on)[colour]) == "failed"
    assert desk.done == ([], 0)


@COLOURS
async def test_a_listener_may_change_the_name_of_its_session(desk: Desk, colour: int) -> None:
    def rename(session: Session) -> None:
        if desk.database.kind == "postgres":
            session.execute(text("SET application_name = 'my reports'"))

    assert await desk.send(listeners(rename)[colour]) == "taken"
    assert desk.done == ([1], 1)


@COLOURS
async def test_an_error_in_the_listener_is_reported_as_such(desk: Desk, colour: int) -> None:
    """SQLAlchemy ends the transaction when a flush fails: that is no commit, and the true error is what counts."""

    def fail_to_flush(session: Session) -> None:
        session.add(Effect(n=1))
        session.flush()

    assert await desk.send(listeners(fail_to_flush)[colour]) == "failed"
    assert "IntegrityError" in desk.says
    assert desk.done == ([], 0)


async def test_an_async_session_cannot_be_committed_either(desk: Desk) -> None:
    async def listener(message: Message, session: AsyncSession) -> None:
        await session.execute(INSERT, {"n": 1})
        await session.commit()

    assert await desk.send(listener) == "failed"
    assert "has called session.commit()" in desk.says
    assert desk.done == ([], 0)


async def test_serve_and_consume_refuse_it_too(desk: Desk) -> None:
    with pytest.raises(TransactionHeld):
        await desk.call_within(listeners(commit)[0])
    assert desk.done == ([], 0)


@COLOURS
async def test_an_error_that_undid_everything_is_not_taken_for_success(desk: Desk, colour: int) -> None:
    """PostgreSQL answers the COMMIT of a transaction that failed with a ROLLBACK, and no error."""

    def swallow(session: Session) -> None:
        with contextlib.suppress(sa.exc.IntegrityError):
            session.execute(INSERT, {"n": 1})

    kind = await desk.send(listeners(swallow)[colour])
    if desk.database.kind == "postgres":
        assert (kind, desk.done) == ("failed", ([], 0))
        assert "went on after an error" in desk.says
    else:  # undoes the statement alone
        assert (kind, desk.done) == ("taken", ([1], 1))


@COLOURS
async def test_savepoints_are_the_listeners_own(desk: Desk, colour: int) -> None:
    def savepoints(session: Session) -> None:
        with contextlib.suppress(sa.exc.IntegrityError), session.begin_nested():
            session.execute(INSERT, {"n": 1})
        with session.begin_nested():
            session.execute(INSERT, {"n": 2})
        undone = session.begin_nested()
        session.execute(INSERT, {"n": 3})
        undone.rollback()
        session.execute(text("SAVEPOINT own"))
        session.execute(INSERT, {"n": 4})
        session.execute(text("ROLLBACK TO SAVEPOINT own"))
        session.begin_nested()
        session.execute(INSERT, {"n": 5})

    assert await desk.send(listeners(savepoints)[colour]) == "taken"
    assert desk.done == ([1, 2, 5], 1)


# ------------------------------------------------------------------------------------------- what they return


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*given: Any, **by_name: Any) -> Any:
        return function(*given, **by_name)

    return wrapper


async def test_an_async_listener_behind_an_ordinary_decorator_or_a_lambda_runs(desk: Desk) -> None:
    seen: list[str] = []

    async def listener(message: Message) -> None:
        seen.append(message.id)

    assert await desk.send(decorated(listener), "m-1") == "taken"
    assert await desk.send(lambda message: listener(message), "m-2") == "taken"
    await desk.call_within(decorated(listener), "m-3")
    await desk.call_within(lambda message: listener(message), "m-4")
    assert seen == ["m-1", "m-2", "m-3", "m-4"]


async def test_a_decorated_async_listener_that_asks_for_a_session_runs(desk: Desk) -> None:
    assert await desk.send(decorated(listeners(lambda session: None)[1])) == "taken"
    assert desk.done == ([1], 1)


async def test_what_fails_behind_a_decorator_has_failed(desk: Desk) -> None:
    async def rejects(message: Message) -> None:
        raise Reject("never")

    assert await desk.send(decorated(rejects)) == "refused"


def yields(message: Message) -> Iterator[int]:
    yield 1


async def returns_seven(message: Message):  # type: ignore[no-untyped-def]
    return 7


@pytest.mark.parametrize(
    ("listener", "says"),
    [
        (decorated(yields), "its body did not run"),
        (lambda message: yields(message), "its body did not run"),
        (lambda message: 7, "returned int"),
        (returns_seven, "returned int"),
        (decorated(returns_seven), "returned int"),
    ],
)
async def test_a_listener_that_returned_something_has_not_taken_the_message(
    desk: Desk, listener: Callable[..., Any], says: str
) -> None:
    assert await desk.send(listener) == "failed"
    assert says in desk.says
    with pytest.raises(Exception, match=says):
        await desk.call_within(listener)


@COLOURS
async def test_what_it_wrote_before_is_undone(desk: Desk, colour: int) -> None:
    def listener(message: Message, session: Session):  # type: ignore[no-untyped-def]
        session.execute(INSERT, {"n": 1})
        return returns_seven(message)

    async def async_listener(message: Message, session: AsyncSession):  # type: ignore[no-untyped-def]
        await session.execute(INSERT, {"n": 1})
        return 7

    assert await desk.send([listener, async_listener][colour]) == "failed"
    assert "returned" in desk.says
    assert desk.done == ([], 0)


# ------------------------------------------------------------------------------------------- which session they get


class OwnSession(Session):
    tenant = "t-1"


class OwnAsyncSession(AsyncSession):
    tenant = "t-1"


async def test_the_annotated_class_is_what_is_passed(desk: Desk) -> None:
    seen: list[object] = []

    def listener(message: Message, *, session: OwnSession | None = None) -> None:
        assert session is not None
        session.execute(INSERT, {"n": 1})
        seen.append(session.tenant)

    async def async_listener(message: Message, db: OwnAsyncSession) -> None:
        await db.execute(INSERT, {"n": 2})
        seen.append(db.tenant)

    assert await desk.send(listener, "m-1") == "taken"
    assert await desk.send(async_listener, "m-2") == "taken"
    assert seen == ["t-1", "t-1"]
    assert desk.done == ([1, 2], 2)


# ------------------------------------------------------------------------------------------- deadlines


async def test_a_listener_that_overran_its_deadline_does_not_commit_later(desk: Desk) -> None:
    """Otherwise its message might be both done and a dead letter."""
    go = threading.Event()

    def listener(message: Message, session: Session) -> None:
        session.execute(INSERT, {"n": 1})
        go.wait()

    parsed = Parsed.parse(desk.database.url)
    destination = ListenerDestination("desk", listener, database=parsed, concurrency=2, timeout_s=1)
    first = await destination.send(message("m-1"))
    again = await destination.send(message("m-1"))
    go.set()
    await eventually_async(lambda: not destination.is_at_work_on(message("m-1")))
    await destination.close()
    assert (first.kind, again.kind) == ("unanswered", "busy")
    assert "took longer than 1 s, its deadline (timeout_s)" in first.reason
    assert "took longer than 1 s, its deadline (timeout_s)" in again.reason
    assert desk.done == ([], 0)


# ------------------------------------------------------------------------------------------- conflicts


class Conflicting:
    """Deadlocks, or fails to serialise, with another transaction of this test, a given number of times."""

    def __init__(self, state: str, times: int) -> None:
        self.raise_it = text(f"DO $$ BEGIN RAISE EXCEPTION 'for the sake of another' USING ERRCODE = '{state}'; END $$")
        self.times = times
        self.calls = 0

    def __call__(self, message: Message, session: Session) -> None:
        session.execute(INSERT, {"n": 1})
        self.fail(session)

    async def in_async(self, message: Message, session: AsyncSession) -> None:
        await session.run_sync(lambda sync: self(message, sync))

    def wrapped(self, message: Message, session: Session) -> None:
        try:
            self(message, session)
        except sa.exc.DBAPIError as error:
            raise LookupError("not to be had") from error

    def fail(self, session: Session) -> None:
        self.calls += 1
        if self.calls <= self.times:
            session.execute(self.raise_it)


@pytest.mark.parametrize("state", ["40P01", "40001"])
@pytest.mark.parametrize("form", ["__call__", "in_async", "wrapped"])
async def test_a_conflict_with_another_transaction_is_tried_again_in_place(
    postgres_database: Database, state: str, form: str
) -> None:
    postgres_database.execute("CREATE TABLE effect (n integer PRIMARY KEY)")
    desk, listener = Desk(postgres_database), Conflicting(state, times=3)
    assert await desk.send(getattr(listener, form)) == "taken"
    assert listener.calls == 4
    assert desk.done == ([1], 1)


async def test_a_call_that_is_repeated_gets_the_message_as_it_was(postgres_database: Database) -> None:
    postgres_database.execute("CREATE TABLE effect (n integer PRIMARY KEY)")
    seen, conflicting = [], Conflicting("40001", times=2)

    def listener(message: Message, session: Session) -> None:
        seen.append(dict(message.data))
        message.data["seen"] = True
        conflicting(message, session)

    assert await Desk(postgres_database).send(listener) == "taken"
    assert len(seen) == 3
    assert all(each == seen[0] and "seen" not in each for each in seen)


async def test_a_conflict_that_does_not_end_counts_as_a_failure(postgres_database: Database) -> None:
    postgres_database.execute("CREATE TABLE effect (n integer PRIMARY KEY)")
    desk, listener = Desk(postgres_database), Conflicting("40001", times=100)
    assert await desk.send(listener) == "failed"
    assert listener.calls == 6
    assert desk.done == ([], 0)


async def test_a_conflict_that_shows_at_the_commit_is_tried_again_too(postgres_database: Database) -> None:
    """Two serialisable transactions each read what the other writes."""
    postgres_database.execute("CREATE TABLE effect (n integer PRIMARY KEY)")
    name = postgres_database.scalar("SELECT current_database()")
    postgres_database.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'serializable'")
    postgres_database.dispose()
    calls = 0
    count = text("SELECT count(*) FROM effect")

    def listener(message: Message, session: Session) -> None:
        nonlocal calls
        calls += 1
        session.execute(count)
        if calls == 1:
            with postgres_database.engine.begin() as other:
                other.execute(count)
                other.execute(INSERT, {"n": 2})
        session.execute(INSERT, {"n": 1})

    desk = Desk(postgres_database)
    assert await desk.send(listener) == "taken"
    assert calls == 2
    assert desk.done == ([1, 2], 1)


async def test_the_mark_of_another_call_stays_when_a_call_has_lost_its_connection(postgres_database: Database) -> None:
    """Its relay had lost the message meanwhile, and another one has called the listener again."""
    postgres_database.execute("CREATE TABLE effect (n integer)")
    desk, pids, may_go_on = Desk(postgres_database), [], threading.Event()

    def listener(message: Message, session: Session) -> None:
        session.execute(INSERT, {"n": 1})
        pids.append(session.execute(text("SELECT pg_backend_pid()")).scalar())
        if len(pids) == 1:
            may_go_on.wait(20)
            session.execute(text("SELECT 1"))

    lost = asyncio.create_task(desk.send(listener))
    await eventually_async(lambda: len(pids) == 1)
    postgres_database.execute(f"SELECT pg_terminate_backend({pids[0]})")
    assert await desk.send(listener) == "taken"
    may_go_on.set()
    assert await lost == "unanswered"
    assert desk.done == ([1], 1)
