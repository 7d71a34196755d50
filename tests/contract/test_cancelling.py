"""A cancelled message is never sent, even if a relay has it in memory; its successors are delivered."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.scene import Outage, Scene, Taker, failing, lane_of, rejecting, to
from support.waiting import eventually_async

from outbox import Message
from outbox.tables import tables
from relay.admin.access.queries import now
from relay.admin.destinations.listing import pause, resume
from relay.admin.messages.cancel import Cancellable, cancel, cancellable
from relay.admin.messages.choice import Choice
from relay.admin.messages.detail import show_message
from relay.admin.messages.listing import list_messages
from relay.admin.messages.replay import Replay, replay

ALL = Choice()


def outcomes(scene: Scene) -> dict[int, str]:
    """Return number → outcome in the history."""
    with scene.database.engine.connect() as connection:
        h = tables().history.c
        return {row.data["n"]: row.outcome or "delivered" for row in connection.execute(sa.select(h.data, h.outcome))}


def audit(scene: Scene) -> list[Any]:
    with scene.database.engine.connect() as connection:
        a = tables().audit.c
        query = sa.select(a.action, a.target, a.count, a.reason).where(a.action == "cancel").order_by(a.id)
        return [tuple(row) for row in connection.execute(query)]


async def settled(scene: Scene, expected: dict[int, str]) -> None:
    def is_so() -> bool:
        assert outcomes(scene) == expected
        return True

    await eventually_async(is_so, what=f"the history says {expected}")


class Gate:
    """A listener that holds what it was given until it is told to take it, or to fail."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.taker = Taker()
        self.fails = False

    async def __call__(self, message: Message) -> None:
        self.taker.note(message)
        await self.opened.wait()
        if self.fails:
            raise ValueError("told to fail")
        self.taker.take(message)


# ------------------------------------------------------------------------------------------------------ without a relay


async def test_what_was_cancelled_before_a_relay_ran_is_not_sent_and_its_history_says_so(scene: Scene) -> None:
    taker, other = Taker(), Taker()
    await scene.drain({"a": taker, "b": to(other, events=["page.*"])})
    scene.emit(2)
    scene.emit(1, delay=timedelta(hours=1))
    with scene.database.engine.connect() as connection:
        found = cancellable(connection, ALL)
    assert sorted(found, key=lambda each: each.state) == [
        Cancellable("page.read", "ready", 2),
        Cancellable("page.read", "scheduled", 1),
    ]
    assert cancel(scene.database.engine, ALL, reason="wrong") == 3
    assert scene.account == (0, 0, 0, 0)
    assert scene.status.cancelled == 3
    assert audit(scene) == [("cancel", {}, 3, "wrong")]

    scene.emit(1)
    await scene.drain({"a": taker, "b": to(other, events=["page.*"])})

    assert (taker.taken, other.taken) == ([3], [3])
    assert outcomes(scene) == {0: "cancelled", 1: "cancelled", 2: "cancelled", 3: "delivered"}
    with scene.database.engine.connect() as connection:
        (shown, *_) = list_messages(connection, state="cancelled")
        detail = show_message(connection, shown.id)
    assert detail is not None
    assert [(d.destination, d.state, d.taken_at_attempt) for d in detail.deliveries] == [
        ("a", "cancelled", None),
        ("b", "cancelled", None),
    ]
    assert scene.status.cancelled == 3


async def test_messages_are_cancelled_by_id_key_type_subject_and_time(scene: Scene) -> None:
    await scene.drain({"a": Taker()})
    scene.emit(1, ordering_key="k*")
    scene.emit(1, ordering_key="kk", subject="book/1")
    scene.emit(1, type="audit.read", subject="book/2")
    scene.emit(1)
    ids = scene.ids()

    def chosen(which: Choice) -> int:
        with scene.database.engine.connect() as connection:
            return sum(each.count for each in cancellable(connection, which))

    assert chosen(Choice(key="k*")) == 1, "a key is no pattern"
    assert chosen(Choice(subject="book/*")) == 2
    assert chosen(Choice(type_="audit.*")) == chosen(Choice(type_="audit.read", subject="book/2")) == 1
    assert chosen(Choice(ids=(ids[0], ids[3]))) == 2
    assert chosen(Choice(destination="a")) == 4
    assert chosen(Choice(destination="b")) == 0
    m = tables().message
    with scene.database.engine.begin() as connection:
        at = now(connection) - timedelta(minutes=30)
        earlier = sa.update(m).where(m.c.id.in_([ids[0], ids[1]]))
        connection.execute(earlier.values(created_at=at - timedelta(milliseconds=1)))
        connection.execute(sa.update(m).where(m.c.id == ids[2]).values(created_at=at))
    assert (chosen(Choice(until=at)), chosen(Choice(since=at))) == (2, 2), "since is included, until is not"
    assert cancel(scene.database.engine, Choice(ids=(ids[0],))) == 1
    assert cancel(scene.database.engine, Choice(key="kk")) == 1
    assert cancel(scene.database.engine, Choice(type_="audit.*")) == 1
    await scene.drain({"a": Taker()})
    assert outcomes(scene) == {0: "cancelled", 1: "cancelled", 2: "cancelled", 3: "delivered"}


async def test_what_is_parked_retried_blocked_or_unrouted_can_be_cancelled_and_what_is_dead_or_taken_cannot(
    scene: Scene,
) -> None:
    fine, down = Taker(), Taker(failing(0))
    a, b = to(fine, events=["page.*"]), to(down, events=["page.*", "audit.*"], backoff_s=3600, backoff_max_s=3600)
    scene.emit(2, ordering_key="k")
    scene.emit(1, type="debug.seen")
    async with scene.relay({"a": a, "b": b}) as relay:
        while not scene.deliveries()["b", "retry"]:  # charged once others that began after its failure are taken
            scene.emit(1)
            await relay.drain()
    others = scene.count - 3
    b = to(Taker(rejecting(scene.count)), events=["page.*", "audit.*"])
    scene.emit(1, type="audit.read")
    await scene.drain({"a": a, "b": b})
    assert scene.deliveries()["b", "blocked"] == 1
    assert (scene.status.dead, scene.status.unrouted) == (1, 1)
    assert cancel(scene.database.engine, ALL) == 3, "the first of the key, the one behind it, and the unrouted one"
    assert scene.account == (2 + others, 0, 1, 0)
    await scene.drain({"a": a, "b": b})
    assert outcomes(scene) == dict.fromkeys(range(3 + others), "delivered") | {2: "cancelled"}
    with scene.database.engine.connect() as connection:
        (first,) = [
            row for row in list_messages(connection, Choice(key="k"), state="delivered") if "b" in row.deliveries
        ][-1:]
    assert first.deliveries == {"a": "delivered", "b": "cancelled"}


async def test_cancelling_for_one_destination_leaves_the_others_theirs_in_order(scene: Scene) -> None:
    a, b = Taker(), Taker()
    await scene.drain({"a": a, "b": b})
    scene.emit(5, ordering_key="k")
    ids = scene.ids()
    assert cancel(scene.database.engine, Choice(ids=(ids[1],), destination="b")) == 1
    assert cancel(scene.database.engine, Choice(ids=(ids[2],), destination="a")) == 1
    async with scene.relay({"a": a, "b": b}):
        await settled(scene, dict.fromkeys(range(5), "delivered"))
    assert (a.taken, b.taken) == ([0, 1, 3, 4], [0, 2, 3, 4])


async def test_what_waits_for_a_destination_that_is_gone_can_be_cancelled(scene: Scene) -> None:
    fine = Taker()
    await scene.drain({"gone": Taker(Outage()), "fine": fine})
    scene.emit(3)
    await scene.drain({"gone": Taker(Outage()), "fine": fine})
    await scene.drain({"fine": fine}, apply=True)
    assert scene.status.destinations["gone"].waiting == 3
    assert cancel(scene.database.engine, Choice(destination="gone")) == 3
    await scene.drain({"fine": fine})
    assert "gone" not in scene.status.destinations
    assert outcomes(scene) == dict.fromkeys(range(3), "delivered")


async def test_more_than_a_batch_is_cancelled_and_counted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.admin.messages.cancel.BATCH", 7)
    taker = Taker()
    await scene.drain({"a": taker})
    scene.emit(30)
    told: list[int] = []
    assert cancel(scene.database.engine, ALL, on_progress=told.append) == 30
    assert told == [7, 14, 21, 28, 30]
    await scene.drain({"a": taker})
    assert taker.taken == []


async def test_a_cancelled_message_can_be_sent_after_all_by_naming_it(scene: Scene) -> None:
    taker = Taker()
    await scene.drain({"a": taker})
    scene.emit(2)
    ids = scene.ids()
    cancel(scene.database.engine, ALL)
    await scene.drain({"a": taker})
    assert replay(scene.database.engine, Replay("a")) == 0, "a range leaves it alone"
    assert replay(scene.database.engine, Replay("a", ids=(ids[1],))) == 1
    await scene.drain({"a": taker})
    assert taker.taken == [1]


# ------------------------------------------------------------------------------------------------- while a relay has it


@pytest.mark.parametrize("key", [None, "k"])
async def test_what_a_relay_has_in_memory_is_not_sent_once_it_was_cancelled(scene: Scene, key: str | None) -> None:
    taker = Taker()
    async with scene.relay({"a": taker}) as relay:
        await relay.drain()
        pause(scene.database.engine, "a")
        await eventually_async(lambda: not lane_of(relay).takes_messages)
        scene.emit(5, ordering_key=key)
        await eventually_async(lambda: lane_of(relay).queue.size == 5)
        ids = scene.ids()
        assert cancel(scene.database.engine, Choice(ids=(ids[0], ids[2]))) == 2
        await settled(scene, {0: "cancelled", 2: "cancelled"})
        resume(scene.database.engine, "a")
        await settled(scene, {0: "cancelled", 1: "delivered", 2: "cancelled", 3: "delivered", 4: "delivered"})
    assert sorted(taker.taken) == [1, 3, 4]
    assert key is None or taker.taken == [1, 3, 4]
    assert all(count == 1 for count in taker.tries.values())


@pytest.mark.parametrize("fails", [False, True], ids=["taken", "failed"])
async def test_cancelling_does_not_affect_an_attempt_under_way_and_the_key_goes_on(scene: Scene, fails: bool) -> None:
    gate = Gate()
    gate.fails = fails
    async with scene.relay({"a": to(gate, concurrency=4)}):
        scene.emit(2, ordering_key="k")
        await gate.taker.has_tried(1)
        first = scene.ids()[0]
        assert cancel(scene.database.engine, Choice(ids=(first,))) == 1
        assert scene.status.cancelled == 1
        scene.emit(1)  # when this one is tried, the relay has looked at the table
        await gate.taker.has_tried(2)
        gate.opened.set()
        await eventually_async(lambda: 0 in outcomes(scene))
        gate.fails = False
        await settled(scene, {0: "cancelled" if fails else "delivered", 1: "delivered", 2: "delivered"})
    assert gate.taker.tries[0] == 1
    assert (0 in gate.taker.taken) is not fails


async def test_a_destination_that_took_it_before_keeps_it_when_its_sibling_is_cancelled(scene: Scene) -> None:
    gate, fine = Gate(), Taker()
    async with scene.relay({"a": gate, "b": fine}):
        scene.emit(1)
        await gate.taker.has_tried(1)
        await fine.has_tried(1)
        cancel(scene.database.engine, ALL)
        gate.fails = True
        gate.opened.set()
        await settled(scene, {0: "delivered"})
    with scene.database.engine.connect() as connection:
        (row,) = list_messages(connection, state="delivered")
    assert row.deliveries == {"a": "cancelled", "b": "delivered"}


async def test_what_was_cancelled_is_counted_by_the_relay_that_finishes_it(scene: Scene) -> None:
    async with scene.relay({"a": Taker()}) as relay:
        await relay.drain()
        scene.emit(3, delay=timedelta(hours=1))
        cancel(scene.database.engine, ALL)
        await settled(scene, dict.fromkeys(range(3), "cancelled"))
        counted = b'outbox_deliveries_total{destination="a",verdict="cancelled"} 3.0'
        await eventually_async(lambda: counted in relay.metrics.text())
