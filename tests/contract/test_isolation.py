"""A destination that hangs, or has any number of messages waiting for it, takes nothing from another.

These tests assert structure: which destination holds how much memory, and which rows a read looks at.
benchmarks/isolation.py measures latency and rate.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from time import monotonic
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from support.databases import Database
from support.desk import Desk, everything
from support.plans import watched
from support.scene import Outage, Scene, Taker, lane_of, to
from support.waiting import eventually_async

from outbox import Message
from outbox.tables import SHARD_COUNT
from relay.databases.database import Database as Address
from relay.databases.postgresql.store import settling as postgres
from relay.databases.postgresql.store.session import PostgresStore
from relay.databases.sqlite.store import settling as sqlite
from relay.databases.sqlite.store.session import SqliteSession, SqliteStore
from relay.databases.store.records import Batch
from relay.databases.store.rows import Cursors
from relay.decide.verdict import PARKED
from relay.delivery.dispatcher import STOCK
from relay.owner.reader import Reader
from relay.owner.session_loop import SessionLoop
from relay.owner.settler import Settler
from relay.seam.entry import Entry

ALL = list(range(SHARD_COUNT))
MANY = 200_000


class Named(NamedTuple):
    """A destination, as far as an entry knows it."""

    name: str


async def hang(message: Message) -> None:
    await asyncio.Event().wait()


def is_confined(scene: Scene, dispatcher: Any, waiting: int) -> bool:
    """Assert that the excess of the hung destination is parked, and a full page can be read; return ``True``."""
    lane = dispatcher.lanes["hung"]
    queue = lane.queue
    assert (len(queue.under_way), queue.size <= queue.limit) == (4, True)
    assert scene.status.destinations["hung"].waiting == waiting
    assert dispatcher.room(16) == 16, "a whole page"
    return True


async def test_what_one_destination_took_is_settled_while_another_still_works_on_it(scene: Scene) -> None:
    """Nothing waits for the sibling's verdict: neither the count of waiting messages nor the settlement."""
    fine = Taker()
    destinations = {"hung": to(hang, concurrency=4, timeout_s=3600), "fine": to(fine)}
    async with scene.relay(destinations, grace_s=0) as relay:
        scene.emit(3)
        await eventually_async(lambda: scene.status.destinations["fine"].waiting == 0)
        assert len(lane_of(relay, "hung").queue.under_way) == 3, "each attempt goes on"
        assert scene.status.destinations["hung"].waiting == 3
    async with scene.relay({"hung": to(fine), "fine": to(fine)}):
        await eventually_async(lambda: scene.status.waiting == 0)
    assert Counter(fine.taken) == dict.fromkeys(set(fine.taken), 2), "once for each destination"


@pytest.mark.parametrize("has_caught_up", [False, True])
async def test_messages_behind_more_failing_ones_than_fit_into_memory_are_reached(
    scene: Scene, has_caught_up: bool
) -> None:
    """Those that failed go back to the table, and do not fill all of the memory again each time they are read."""

    def fate(message: Message) -> None:
        if message.type == "page.broken":
            raise ConnectionError("no answer")

    taker = Taker(fate)
    options = {"concurrency": 4, "backoff_s": 0.02, "backoff_max_s": 0.1}
    if not has_caught_up:
        scene.emit(200, type="page.broken")
    async with scene.relay({"a": to(taker, **options)}, window=20, grace_s=0) as relay:
        if has_caught_up:
            await eventually_async(lambda: relay._running.owner.caught_up)  # type: ignore[union-attr]
            scene.emit(200, type="page.broken")
        behind = scene.emit(40)
        await eventually_async(lambda: set(behind) <= set(taker.taken), deadline_s=60)


@pytest.mark.parametrize("has_siblings", [False, True])
async def test_messages_behind_failing_ones_that_were_all_tried_are_reached_though_no_new_one_comes(
    scene: Scene, has_siblings: bool
) -> None:
    """After an outage, those that failed in it are not the first to be tried again and again."""
    outage = Outage()

    def fate(message: Message) -> None:
        outage(message)
        if message.data["n"] < 60:
            raise ConnectionError("no answer")

    taker = Taker(fate)
    destinations = {"a": to(taker, concurrency=4, backoff_s=0.02, backoff_max_s=0.1)}
    destinations |= {"fine": to(Taker())} if has_siblings else {}
    scene.emit_keys([f"k{n}" if has_siblings else None for n in range(80)])
    async with scene.relay(destinations, window=8 * len(destinations), page_size=4, grace_s=0):
        await eventually_async(lambda: len(taker.tries) == 80, deadline_s=60)
        outage.down = False
        await eventually_async(lambda: set(range(60, 80)) <= set(taker.taken), deadline_s=60)


@pytest.mark.parametrize("has_sibling", [False, True])
async def test_there_is_enough_to_do_only_while_every_destination_has_much_to_send(
    scene: Scene, has_sibling: bool
) -> None:
    fine = Taker()
    destinations = {"hung": to(hang, concurrency=1, timeout_s=3600)} | ({"fine": to(fine)} if has_sibling else {})
    async with scene.relay(destinations, grace_s=0) as relay:
        dispatcher = relay._running.loop_side.dispatcher  # type: ignore[union-attr]
        assert not dispatcher.is_stocked
        scene.emit(STOCK + 1)
        lane = dispatcher.lanes["hung"]
        await eventually_async(lambda: len(lane.queue.startable) >= STOCK and scene.status.waiting == STOCK + 1)
        await eventually_async(lambda: len(fine.taken) == (STOCK + 1 if has_sibling else 0))
        await eventually_async(lambda: dispatcher.is_stocked is not has_sibling)


@pytest.mark.parametrize("types", [("page.read", "page.read"), ("page.hung", "page.read")], ids=["same", "others"])
async def test_a_destination_that_hangs_holds_its_own_room_and_no_more(scene: Scene, types: tuple[str, str]) -> None:
    """It keeps to its limits of attempts under way and of messages in memory; the other messages are parked."""
    fine = Taker()
    destinations = {
        "hung": to(hang, events=[types[0]], concurrency=4, timeout_s=3600),
        "fine": to(fine, events=[types[1]]),
    }
    async with scene.relay(destinations, window=64, page_size=16, grace_s=0) as relay:
        dispatcher: Any = relay._running.loop_side.dispatcher
        for count in (300, 300):
            for type_ in dict.fromkeys(types):
                scene.emit(count, type=type_)
            wanted = len(fine.taken) + count
            await eventually_async(lambda wanted=wanted: len(fine.taken) == wanted)
            hung = scene.count // len(set(types))
            await eventually_async(lambda hung=hung: is_confined(scene, dispatcher, hung))
    assert set(fine.tries.values()) == {1}


def test_a_turn_settles_a_few_exceptions_and_leaves_the_rest_to_the_next(database: Database) -> None:
    """So a destination that goes down with a thousand messages in its queue delays the next read only by a few."""
    desk = Desk(database)
    desk.emit(5)
    session = desk.owner()
    lane = Named("down")
    entries = [Entry(row, (lane,), epoch=1) for row in session.reading.read_ready(everything(), 100).messages]
    for entry in entries:
        entry.decide("down", PARKED)
    reader: Any = SimpleNamespace(note_exceptions=lambda *_: None, reread=lambda _: None)
    seam: Any = SimpleNamespace(tell=SimpleNamespace(forget=lambda _: None))
    settler = Settler(session.settling, 1, reader, seam, unconfirmed=[], clock=monotonic)
    ruled = deque(entries)
    for parked, left in ((2, 3), (4, 1), (5, 0)):
        settler.settle(deque(), ruled, limit=2)
        assert (len(desk.deliveries()), len(ruled)) == (parked, left)
    session.close()


async def test_a_look_never_waits_for_what_is_parked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn first reads messages for all destinations, and then parks a few of those that a down one refused."""
    monkeypatch.setattr("relay.owner.session_loop.FEW", 5)
    calls: list[str] = []
    settling = postgres.Settling if scene.database.kind == "postgres" else sqlite.Settling
    for owner, name in ((SessionLoop, "turn"), (Reader, "read"), (settling, "settle")):
        monkeypatch.setattr(owner, name, recorded(calls, name, getattr(owner, name)))
    batches: list[int] = []
    monkeypatch.setattr(settling, "settle", sized(batches, settling.settle))
    fine = Taker()
    async with scene.relay({"down": to(Taker(Outage())), "fine": to(fine)}, window=1000):
        for count in (30, 60, 90):
            scene.emit(30)
            await eventually_async(lambda count=count: len(fine.taken) == count)
            await eventually_async(lambda count=count: scene.deliveries()["fine", "delivered"] > count - 30)
        assert ("turn", "settle") not in pairwise(calls), "from here on nothing is read any more"
        assert max(batches) <= 5


def sized(batches: list[int], settle: Callable[..., Any]) -> Callable[..., Any]:
    def note(session: Any, batch: Batch, **options: Any) -> Any:
        batches.append(len(batch.messages))
        return settle(session, batch, **options)

    return note


def recorded(calls: list[str], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def record(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        return method(*arguments, **options)

    return record


# ------------------------------------------------------------------- what a read costs beside very many


def park(database: Database, count: int) -> None:
    """Insert parked deliveries to `down` by SQL; this test does not need their messages."""
    if database.kind == "postgres":
        numbers = f"generate_series(1, {count}) AS s (n)"
        id_ = "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
        with_ = ""
    else:
        numbers, id_ = "s", "printf('%08x-0000-7000-8000-%012x', n, n)"
        with_ = f"WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) "
    database.execute(
        f"{with_}INSERT INTO outbox_delivery (message_id, destination, shard, position, state) "
        f"SELECT {id_}, 'down', n % 64, n, 'parked' FROM {numbers}"
    )


def fill(scene: Scene) -> None:
    """Fill the outbox with messages for `fine`: half of them ready, half of them parked."""
    scene.emit(500)
    scene.database.execute("UPDATE outbox_message SET state = 'held' WHERE state = 'ready'")
    scene.database.execute(
        "INSERT INTO outbox_delivery (message_id, destination, shard, position, state) "
        "SELECT id, 'fine', shard, position, 'parked' FROM outbox_message AS m "
        "WHERE NOT EXISTS (SELECT 1 FROM outbox_delivery AS d WHERE d.message_id = m.id)"
    )
    scene.emit(500)


def read_everything(session: Any) -> tuple[int, int]:
    """Read as a relay does while `down` is paused; return the counts of messages and deliveries found."""
    cursors = Cursors(dict.fromkeys(ALL, 0))
    messages = deliveries = 0
    while rows := session.reading.read_ready(cursors, 250).messages:
        messages += len(rows)
    session.reading.read_due(ALL, 100)
    while parked := session.reading.read_parked(cursors, ["fine"], 250):
        deliveries += len(parked)
    return messages, deliveries


def test_however_many_are_parked_for_one_the_reads_of_another_cost_the_same(postgres_database: Database) -> None:
    scene = Scene(postgres_database)
    costs: list[tuple[Counter[str], Counter[str]]] = []
    for parked in (0, MANY):
        if parked:
            postgres_database.execute("TRUNCATE outbox_message, outbox_delivery")
            park(postgres_database, parked)
        fill(scene)
        store = PostgresStore(Address.parse(postgres_database.url), lease_s=60, keep_history=True, notify=True)
        session = store.open("relay")
        session.ownership.take(ALL)
        with watched(session) as plans:
            assert read_everything(session) == (500, 500)
        session.close()
        pages: Counter[str] = Counter()
        rows: Counter[str] = Counter()
        for plan in plans:
            pages[plan.name] += plan.pages
            rows[plan.name] += plan.rows_looked_at
        costs.append((pages, rows))
    (pages_alone, rows_alone), (pages_beside, rows_beside) = costs
    assert all(rows_beside[name] <= rows_alone[name] + SHARD_COUNT for name in rows_beside), (rows_alone, rows_beside)
    for name, pages_read in pages_beside.items():
        # indexes are two levels deeper: two pages more for each descent, and no proportional cost
        assert pages_read <= 3 * pages_alone[name] + 64, name


@contextmanager
def counted(session: SqliteSession) -> Iterator[Callable[[], int]]:
    """Yield a function that returns the number of instructions that SQLite's virtual machine has executed."""
    count = 0

    def note() -> None:
        nonlocal count
        count += 1

    session.connection.bare.set_progress_handler(note, 1)
    yield lambda: count
    session.connection.bare.set_progress_handler(None, 0)


def test_on_sqlite_too_the_reads_of_another_cost_the_same(sqlite_database: Database) -> None:
    scene = Scene(sqlite_database)
    costs = []
    for parked in (0, MANY // 4):
        if parked:
            for table in ("outbox_delivery", "outbox_message"):
                sqlite_database.execute(f"DELETE FROM {table}")
            park(sqlite_database, parked)
        fill(scene)
        session = SqliteStore(Address.parse(sqlite_database.url), keep_history=True).open("relay")
        session.ownership.take(ALL)
        with counted(session) as instructions:
            assert read_everything(session) == (500, 500)
        costs.append(instructions())
        session.close()
    assert costs[1] <= costs[0] * 1.01
