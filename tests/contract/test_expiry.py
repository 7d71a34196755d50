"""Messages that expire: not sent after their time, settled as *expired*, and blocking no others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.databases import Database
from support.scene import Scene, Taker, to
from support.waiting import eventually_async

from outbox import Draft, emit, emit_many
from outbox.errors import InvalidDelay
from relay.admin.access.queries import snapshot
from relay.admin.messages.detail import show_message
from relay.admin.messages.listing import list_messages
from relay.admin.messages.replay import Replay, replay
from relay.admin.status import Status


def expire(database: Database, ago_s: int = 60) -> None:
    """Let time pass until everything with an expiry has been expired for this long."""
    past = f"clock_timestamp() - interval '{ago_s} seconds'"
    if database.kind == "sqlite":
        past = f"strftime('%Y-%m-%d %H:%M:%f', 'now', '-{ago_s} seconds')"
    database.execute(f"UPDATE outbox_message SET expires_at = {past} WHERE expires_at IS NOT NULL")


def age(database: Database, ago_s: int) -> None:
    """Make every row older."""
    past = f"clock_timestamp() - interval '{ago_s} seconds'"
    if database.kind == "sqlite":
        past = f"strftime('%Y-%m-%d %H:%M:%f', 'now', '-{ago_s} seconds')"
    database.execute(f"UPDATE outbox_message SET created_at = {past}")


async def drained(scene: Scene, destinations: dict[str, Any]) -> Status:
    async with scene.relay(destinations) as relay:
        await relay.drain()
    return scene.status


async def test_what_has_expired_is_not_sent_and_settled_as_expired(scene: Scene, database: Database) -> None:
    scene.emit(3, expires_in=3600)
    expire(database)
    scene.emit(2)
    taker = Taker()
    found = await drained(scene, {"a": to(taker)})
    assert sorted(taker.taken) == [3, 4]
    assert (found.expired, found.delivered, found.waiting, found.dead) == (3, 2, 0, 0)
    assert found.destinations["a"].waiting == 0
    assert database.scalar("SELECT count(*) FROM outbox_history WHERE outcome = 'expired'") == 3
    assert database.scalar("SELECT count(*) FROM outbox_message") == 0


async def test_what_has_time_is_delivered_and_what_has_no_expiry_never_expires(
    scene: Scene, database: Database
) -> None:
    scene.emit(2, expires_in=timedelta(hours=1))
    scene.emit(2)
    age(database, 100 * 86_400)
    taker = Taker()
    assert (await drained(scene, {"a": to(taker)})).delivered == 4
    assert len(taker.taken) == 4


async def test_the_next_of_its_key_goes_on(scene: Scene, database: Database) -> None:
    scene.emit(2, expires_in=3600, ordering_key="k")
    expire(database)
    scene.emit(2, ordering_key="k")
    taker = Taker()
    assert (await drained(scene, {"a": to(taker)})).expired == 2
    assert taker.taken == [2, 3]


async def test_a_destination_may_want_only_what_is_fresh(scene: Scene, database: Database) -> None:
    scene.emit(2)
    age(database, 120)
    scene.emit(1)
    fresh, patient = Taker(), Taker()
    found = await drained(scene, {"fresh": to(fresh, expires_in="1m"), "patient": to(patient)})
    assert (fresh.taken, sorted(patient.taken)) == ([2], [0, 1, 2])
    assert (found.expired, found.delivered) == (0, 3), "one destination took them"
    with snapshot(database.engine) as connection:
        row = list_messages(connection, state="delivered", limit=10)[-1]
        detail = show_message(connection, row.id)
    assert row.deliveries == {"fresh": "expired", "patient": "delivered"}
    assert detail is not None
    states = {each.destination: (each.state, each.reason) for each in detail.deliveries}
    assert states["fresh"] == ("expired", "its time had passed before an attempt began")


async def test_the_time_at_a_destination_counts_from_when_a_message_is_due(scene: Scene, database: Database) -> None:
    scene.emit(1, due_at=datetime.now(UTC) + timedelta(seconds=0.2))
    age(database, 600)
    taker = Taker(lambda _: taker.attempts[1])  # fails once, so that it is set aside on its way
    async with scene.relay({"a": to(taker, expires_in="5m", backoff_s=0.02, backoff_max_s=0.05)}):
        await eventually_async(lambda: scene.status.delivered == 1)
    assert len(taker.attempts) > 1


async def test_what_waits_for_a_retry_expires_when_it_falls_due(scene: Scene, database: Database) -> None:
    def fail(_: object) -> None:
        expire(database)
        raise OSError("down")

    scene.emit(1, expires_in=3600)
    taker = Taker(fail)
    async with scene.relay({"a": to(taker, backoff_s=0.02, backoff_max_s=0.05)}):
        # The relay goes by what it has read, until it reads the message again.
        await eventually_async(lambda: bool(taker.attempts))
    assert scene.status.waiting == 1
    found = await drained(scene, {"a": to(taker)})
    assert (found.expired, len({a.id for a in taker.attempts})) == (1, 1)


async def test_an_operator_sends_what_has_expired_all_the_same(scene: Scene, database: Database) -> None:
    scene.emit(1, expires_in=3600)
    expire(database)
    taker = Taker()
    destinations = {"a": to(taker, expires_in="1m")}
    await drained(scene, destinations)
    with snapshot(database.engine) as connection:
        (row,) = list_messages(connection, state="expired", limit=10)
    assert row.deliveries == {"a": "expired"}
    age(database, 600)
    assert replay(database.engine, Replay("a")) == 0, "a replay of what was delivered leaves it alone"
    assert replay(database.engine, Replay("a", ids=(row.id,))) == 1
    assert (await drained(scene, destinations)).delivered == 1
    assert taker.taken == [0]


async def test_an_attempt_under_way_is_not_cut_off(scene: Scene, database: Database) -> None:
    scene.emit(1, expires_in=3600)
    taker = Taker(lambda _: expire(database))
    assert (await drained(scene, {"a": to(taker)})).delivered == 1


# ------------------------------------------------------------------------------------------------- writing


def written(database: Database) -> list[float]:
    """Return how long after it is due, or was written, each message expires, in seconds."""
    seconds = "extract(epoch FROM expires_at - coalesce(due_at, created_at))"
    if database.kind == "sqlite":
        seconds = "(julianday(expires_at) - julianday(coalesce(due_at, created_at))) * 86400.0"
    return [float(row[0]) for row in database.rows(f"SELECT {seconds} FROM outbox_message ORDER BY position")]


def test_the_time_counts_from_when_it_is_written_or_due(database: Database) -> None:
    due_at = datetime.now(UTC) + timedelta(days=1)
    with database.engine.begin() as connection:
        emit(connection, "t", {}, expires_in=60)
        emit(connection, "t", {}, expires_in=timedelta(minutes=1), delay=600)
        emit(connection, "t", {}, expires_in=60, due_at=due_at)
        emit(connection, "t", {}, expires_in=60, delay=600, id="0197c0de-0000-7000-8000-000000000001")
        emit_many(connection, [("t", {}), ("t", {})], expires_in=60)
        emit_many(
            connection,
            [Draft("t", {}, expires_in=60, delay=600), Draft("t", {}, expires_in=60, due_at=due_at)],
        )
    assert written(database) == pytest.approx([60.0] * 8, abs=2)


@pytest.mark.parametrize("expires_in", [0, -1, float("nan"), "1h", timedelta(days=4000), True])
def test_a_time_that_makes_no_sense_is_refused(database: Database, expires_in: Any) -> None:
    with database.engine.begin() as connection, pytest.raises(InvalidDelay, match="expires_in"):
        emit(connection, "t", {}, expires_in=expires_in)


def test_an_instant_that_is_too_far_away_is_refused(database: Database) -> None:
    due_at = datetime(9990, 1, 1, tzinfo=UTC)
    with database.engine.begin() as connection, pytest.raises(InvalidDelay, match="after the year"):
        emit(connection, "t", {}, due_at=due_at, expires_in=timedelta(days=3650))


def test_other_languages_give_an_instant(postgres_database: Database) -> None:
    postgres_database.execute("SELECT outbox_emit('t', '{}', expires_at => now() + interval '1 minute')")
    assert written(postgres_database) == pytest.approx([60.0], abs=2)
