"""The figures that operators see are true, add up, and are the same on both databases."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.databases import Database
from support.desk import Desk

from outbox import emit
from outbox.tables import tables
from relay.admin.access.queries import snapshot
from relay.admin.grants import grants
from relay.admin.messages.choice import Choice
from relay.admin.messages.detail import show_message
from relay.admin.messages.listing import list_messages
from relay.admin.relays import live_relays
from relay.admin.status import DestinationStatus, Status, status

HOUR = timedelta(hours=1)


@pytest.fixture
def connection(database: Database) -> Iterator[sa.Connection]:
    with database.engine.connect() as connection:
        yield connection


def register(connection: sa.Connection, name: str, *events: str) -> None:
    wanted = {"events": list(events), "wanted": [[1, list(events)]]}
    connection.execute(sa.insert(tables().destination).values(name=name, kind="listener", generation=1, **wanted))


def send(connection: sa.Connection, type_: str = "extraction.completed", **options: object) -> str:
    return emit(connection, type_, {"contentId": "c-1"}, **options)  # type: ignore[arg-type]


def set_aside(connection: sa.Connection, message_id: str, destination: str, state: str, **values: object) -> None:
    """Write a delivery as a relay does when it is not simply delivered."""
    message, delivery = tables().message, tables().delivery
    row = connection.execute(sa.select(message).where(message.c.id == message_id)).one()
    connection.execute(
        sa.insert(delivery).values(
            message_id=message_id,
            destination=destination,
            shard=row.shard,
            position=row.position,
            ordering_key=row.ordering_key,
            state=state,
            **values,
        )
    )


def become(connection: sa.Connection, message_id: str, state: str) -> None:
    message = tables().message
    connection.execute(sa.update(message).where(message.c.id == message_id).values(state=state))


ENDS = [("cancelled", "cancelled"), ("cancelled", "discarded"), ("discarded", "discarded"), ("delivered", "cancelled")]


def deliver(connection: sa.Connection, message_id: str, **values: object) -> None:
    """Move a message to the history, as settled for the first generation of destinations."""
    message, history, delivery = tables().message, tables().history, tables().delivery
    row = connection.execute(sa.select(message).where(message.c.id == message_id)).one()
    shared = {c.name: getattr(row, c.name) for c in history.c if c.name in message.c}
    connection.execute(sa.insert(history).values(**{**shared, "attempts": 1, "registered": 1, **values}))
    connection.execute(sa.delete(message).where(message.c.id == message_id))
    connection.execute(sa.delete(delivery).where(delivery.c.message_id == message_id))


def now(connection: sa.Connection) -> datetime:
    return datetime.now(UTC)


def test_an_empty_outbox_is_all_zeros(connection: sa.Connection) -> None:
    assert status(connection) == Status()


def test_every_message_counts_once(connection: sa.Connection) -> None:
    register(connection, "api", "extraction.*")
    register(connection, "reports", "*")
    ids = [send(connection, ordering_key=str(n)) for n in range(8)]
    send(connection, delay=HOUR)
    _ready, parked, retrying, dead, half_dead, unrouted, delivered, done_at_api = ids
    for message_id in (parked, retrying, dead, half_dead):
        become(connection, message_id, "held")
    set_aside(connection, parked, "api", "parked")
    set_aside(connection, parked, "reports", "delivered")
    set_aside(connection, retrying, "api", "retry", due_at=now(connection) + HOUR, attempts=1)
    set_aside(connection, retrying, "reports", "retry", due_at=now(connection) + HOUR, attempts=1)
    set_aside(connection, dead, "api", "dead", reason="refused")
    set_aside(connection, dead, "reports", "delivered")
    set_aside(connection, half_dead, "api", "dead", reason="refused")
    set_aside(connection, half_dead, "reports", "blocked")
    become(connection, unrouted, "unrouted")
    deliver(connection, delivered)
    set_aside(connection, done_at_api, "api", "delivered")

    given_up = [send(connection) for _ in range(4)]
    for message_id, (api, reports) in zip(given_up, ENDS, strict=True):
        become(connection, message_id, "held")
        set_aside(connection, message_id, "api", api)
        set_aside(connection, message_id, "reports", reports)
    deliver(connection, given_up[0], outcome="cancelled")

    found = status(connection)

    assert (found.waiting, found.dead, found.unrouted, found.waiting_and_dead) == (6, 2, 1, 1)
    assert (found.delivered, found.cancelled, found.discarded) == (2, 2, 1)
    once = found.waiting + found.dead + found.unrouted + found.delivered + found.cancelled + found.discarded
    assert once - found.waiting_and_dead == 13
    assert (found.scheduled, found.parked, found.blocked, found.retrying) == (1, 2, 1, 2)
    # api: ready, scheduled, parked, retrying; reports: ready, scheduled, done_at_api, retrying, half_dead
    api, reports = (replace(found.destinations[name], since=None) for name in ("api", "reports"))
    assert api == DestinationStatus("api", "listener", "healthy", None, 4, 2, ["extraction.*"], parked=1, retrying=1)
    assert reports == DestinationStatus(
        "reports", "listener", "healthy", None, 5, 0, ["*"], parked=1, blocked=1, retrying=1
    )


@pytest.mark.parametrize("seed", range(8))
def test_no_two_numbers_contradict_each_other(connection: sa.Connection, seed: int) -> None:
    """In any mix of states, a part is at most the whole, and there is an oldest message if any waits."""
    chance = random.Random(seed)
    register(connection, "api", "extraction.*")
    register(connection, "reports", "*")
    for _ in range(12):
        message_id = send(connection, ordering_key="k", **({"delay": HOUR} if chance.random() < 0.1 else {}))
        if chance.random() < 0.8:
            become(connection, message_id, "held")
            for name in ("api", "reports"):
                state = chance.choice(["parked", "blocked", "retry", "dead", "delivered", "discarded", "cancelled"])
                due_at = now(connection) + HOUR if state == "retry" else None
                set_aside(connection, message_id, name, state, reason="why", due_at=due_at)
    found = status(connection)
    ways = found.destinations.values()
    assert found.scheduled + found.waiting_and_dead <= found.waiting
    assert found.waiting_and_dead <= found.dead
    assert found.parked == sum(way.parked for way in ways)
    assert found.retrying == sum(way.retrying for way in ways)
    assert found.blocked == sum(way.blocked for way in ways)
    assert all(way.blocked <= way.parked for way in ways)
    assert all(way.parked + way.retrying <= way.waiting <= found.waiting for way in ways)
    assert sum(way.waiting for way in ways) >= found.waiting
    assert all(way.dead <= found.dead for way in ways)
    assert sum(way.dead for way in ways) >= found.dead
    assert (found.oldest_waiting_s is None) == (found.waiting == found.scheduled)
    settled = found.delivered + found.cancelled + found.discarded
    assert found.waiting + found.dead - found.waiting_and_dead + settled == 12


def test_a_destination_waits_only_for_what_it_wants(connection: sa.Connection) -> None:
    register(connection, "api", "extraction.*")
    register(connection, "audit", "audit.[ab]", "other")
    for type_ in ("extraction.completed", "extraction.failed", "audit.a", "audit.c", "other"):
        send(connection, type_)
    found = status(connection).destinations
    assert (found["api"].waiting, found["audit"].waiting) == (2, 2)


def test_a_paused_destination_says_why_and_a_removed_one_is_gone(connection: sa.Connection) -> None:
    register(connection, "api", "*")
    register(connection, "old", "*")
    table = tables().destination
    connection.execute(
        sa.update(table)
        .where(table.c.name == "api")
        .values(state="paused", reason="connection refused", paused_by="failure")
    )
    connection.execute(sa.update(table).where(table.c.name == "old").values(removed_at=now(connection)))
    found = status(connection).destinations
    assert list(found) == ["api"]
    assert (found["api"].state, found["api"].reason) == ("paused", "connection refused")
    set_aside(connection, send(connection), "old", "parked")
    assert (status(connection).destinations["old"].state, status(connection).destinations["old"].waiting) == (
        "removed",
        1,
    )


def test_the_oldest_waiting_message_is_one_that_is_due(connection: sa.Connection) -> None:
    assert status(connection).oldest_waiting_s is None
    send(connection, delay=HOUR)
    assert status(connection).oldest_waiting_s is None
    table = tables().message
    late = send(connection)
    connection.execute(sa.update(table).where(table.c.id == late).values(created_at=now(connection) - HOUR))
    dead = send(connection)
    connection.execute(
        sa.update(table).where(table.c.id == dead).values(created_at=now(connection) - 2 * HOUR, state="held")
    )
    set_aside(connection, dead, "api", "dead", reason="refused")
    oldest_s = status(connection).oldest_waiting_s
    assert oldest_s is not None
    assert 3590 < oldest_s < 3610
    set_aside(connection, dead, "reports", "parked")
    oldest_s = status(connection).oldest_waiting_s
    assert oldest_s is not None
    assert oldest_s > 7190, "dead for one destination, it still waits for another"


def test_a_relay_is_alive_while_its_session_is_and_owns_what_that_holds(database: Database) -> None:
    desk = Desk(database)
    database.execute(
        "INSERT INTO outbox_relay (id, backend_pid, release, shards) VALUES ('killed', 1, '0', :shards)",
        shards=json.dumps(list(range(64))),
    )

    def found() -> list[tuple[str, int]]:
        with database.engine.connect() as connection:
            assert [relay.id for relay in status(connection).relays] == [relay.id for relay in live_relays(connection)]
            return [(relay.id, len(relay.shards)) for relay in live_relays(connection)]

    assert found() == [], "its row outlives its session"
    first = desk.owner("first")
    first.ownership.beat(list(range(64)), 0)
    assert found() == [("first", 64)]
    if database.kind == "postgres":
        second = desk.open("second")
        first.ownership.give(list(range(32)))
        second.ownership.take(list(range(32)))
        assert found() == [("first", 32), ("second", 32)], "at once, despite the last beats"
        second.close()
        assert found() == [("first", 32)]
    first.close()
    assert found() == []


@pytest.mark.parametrize("data", ["[" * 2000 + "]" * 2000, f"[{'1' * 5000}]"], ids=["deep", "long"])
def test_messages_are_listed_with_any_data(postgres_database: Database, data: str) -> None:
    """SQL may write what Python cannot parse; one such message used to break `messages list`."""
    postgres_database.execute(
        "INSERT INTO outbox_message (id, type, source, data) "
        "VALUES (gen_random_uuid(), 'a.b', 'sql', CAST(:data AS jsonb))",
        data=data,
    )
    with postgres_database.engine.connect() as connection:
        assert [row.type for row in list_messages(connection)] == ["a.b"]


def test_messages_are_listed_newest_first_and_found_by_type_and_state(connection: sa.Connection) -> None:
    first, second, third = send(connection), send(connection, "audit.a_b"), send(connection, "audit.axb", delay=HOUR)
    done = send(connection, ordering_key="k", subject="s")
    deliver(connection, done)
    assert [row.id for row in list_messages(connection)] == [third, second, first]
    assert [row.id for row in list_messages(connection, limit=1)] == [third]
    assert [row.id for row in list_messages(connection, Choice(type_="audit.*"))] == [third, second]
    assert [row.id for row in list_messages(connection, Choice(type_="audit.a_b"))] == [second]
    assert [row.id for row in list_messages(connection, Choice(type_="audit.a_*"))] == [second]
    assert [row.id for row in list_messages(connection, state="scheduled")] == [third]
    (row,) = list_messages(connection, state="delivered")
    assert (row.id, row.state, row.ordering_key, row.subject) == (done, "delivered", "k", "s")
    assert row.settled_at is not None


def test_one_message_is_shown_wherever_it_is(connection: sa.Connection) -> None:
    message_id = send(connection, headers={"tenant": "t-1"}, ordering_key="c-1")
    become(connection, message_id, "held")
    set_aside(connection, message_id, "api", "dead", reason="refused: 422", attempts=3, log=[{"attempt": 1}])
    found = show_message(connection, message_id)
    assert found is not None
    assert found.data == {"contentId": "c-1"}
    assert found.headers["tenant"] == "t-1"
    (delivery,) = found.deliveries
    assert (delivery.destination, delivery.state, delivery.attempts) == ("api", "dead", 3)
    assert (delivery.reason, delivery.log) == ("refused: 422", [{"attempt": 1}])
    assert list_messages(connection)[0].deliveries == {"api": "dead"}
    deliver(connection, message_id)
    moved = show_message(connection, message_id)
    assert moved is not None
    assert (moved.message.state, moved.attempts) == ("delivered", 1)
    assert show_message(connection, "0197c0de-0000-7000-8000-000000000000") is None


def test_a_snapshot_sees_one_moment_and_changes_nothing(database: Database) -> None:
    with snapshot(database.engine) as connection:
        assert status(connection).waiting == 0
        with database.engine.begin() as other:
            send(other)
        assert status(connection).waiting == 0
    with snapshot(database.engine) as connection:
        assert status(connection).waiting == 1
    if database.kind == "postgres":
        with snapshot(database.engine) as connection, pytest.raises(sa.exc.DBAPIError, match="read-only"):
            send(connection)


def test_status_can_be_printed_as_json(connection: sa.Connection) -> None:
    register(connection, "api", "*")
    assert json.loads(json.dumps(asdict(status(connection)), default=str))["destinations"]["api"]["waiting"] == 0


def test_grants_can_be_run_and_are_enough_to_emit(postgres_database: Database) -> None:
    role = f"worker {postgres_database.url.rsplit('_', 1)[-1]}"
    with postgres_database.engine.begin() as connection:
        connection.exec_driver_sql(f'CREATE ROLE "{role}"')
        connection.exec_driver_sql(grants(worker=role, relay=role, migrator=role))
        connection.exec_driver_sql(f'SET ROLE "{role}"')
        send(connection)
        connection.exec_driver_sql("""SELECT outbox_emit('extraction.completed', '{"contentId": "c-1"}')""")
        assert status(connection).waiting == 2
        connection.rollback()


def test_what_was_given_up_is_in_the_history_and_is_not_counted_as_delivered(database: Database) -> None:
    for number, outcome in enumerate([None, None, None, "discarded", "cancelled", "cancelled"]):
        database.execute(
            "INSERT INTO outbox_history (id, position, type, source, data, headers, created_at, attempts, outcome) "
            "VALUES (:id, 1, 'x.y', 'outbox', '{}', '{}', CURRENT_TIMESTAMP, 1, :outcome)",
            id=f"0197c0de-0000-7000-8000-00000000000{number}",
            outcome=outcome,
        )
    with database.engine.connect() as connection:
        found = status(connection)
    assert (found.delivered, found.discarded, found.cancelled) == (3, 1, 2)


def test_messages_are_listed_by_key_subject_time_destination_and_the_state_of_a_delivery(
    connection: sa.Connection,
) -> None:
    register(connection, "api", "extraction.*")
    register(connection, "reports", "*")
    keyed = send(connection, ordering_key="k*", subject="book/1")
    other = send(connection, "audit.read", ordering_key="kk", subject="book/2")
    parked, taken, given_up, half = (send(connection) for _ in range(4))
    for message_id in (parked, given_up, half):
        become(connection, message_id, "held")
    set_aside(connection, parked, "api", "parked")
    set_aside(connection, parked, "reports", "delivered")
    set_aside(connection, given_up, "api", "cancelled")
    set_aside(connection, given_up, "reports", "discarded")
    set_aside(connection, half, "api", "cancelled")
    set_aside(connection, half, "reports", "dead", reason="why")
    deliver(connection, taken, registered=1)

    def listed(state: str | None = None, **which: Any) -> list[str]:
        return [row.id for row in list_messages(connection, Choice(**which), state=state)]

    assert listed(key="k*") == [keyed]
    assert listed(subject="book/*") == [other, keyed]
    assert listed(destination="api") == [parked, keyed]
    assert listed(destination="reports") == [half, other, keyed]
    assert listed(destination="reports", type_="audit.*") == [other]
    assert listed(state="parked") == [parked]
    assert listed(state="dead", destination="reports") == [half]
    assert listed(state="dead", destination="api") == []
    assert listed(state="held") == [half, parked]
    assert listed(state="cancelled") == [given_up], "what its owner has yet to move is cancelled already"
    assert listed(state="cancelled", destination="api") == [half, given_up]
    assert listed(state="discarded", destination="reports") == [given_up]
    assert listed(state="discarded") == []
    assert listed(state="delivered") == [taken]
    assert listed(state="delivered", destination="reports") == [taken, parked]
    states = {row.id: row.state for row in list_messages(connection)}
    assert (states[given_up], states[half], states[parked]) == ("cancelled", "held", "held")
    deliver(connection, given_up, outcome="cancelled", deliveries={"api": {"state": "cancelled", "attempts": 0}})
    assert [(row.id, row.state) for row in list_messages(connection, state="cancelled")] == [(given_up, "cancelled")]
    m, an_hour_ago = tables().message, now(connection) - HOUR
    connection.execute(sa.update(m).where(m.c.id == keyed).values(created_at=an_hour_ago))
    assert listed(until=an_hour_ago + HOUR / 2) == [keyed]
    assert listed(since=an_hour_ago + HOUR / 2, type_="audit.*") == [other]
    assert listed(state="delivered", since=now(connection) - HOUR) == [taken]
    assert listed(state="delivered", until=now(connection) - HOUR) == []


def test_a_delivered_message_says_who_took_it_when_and_at_which_attempt(connection: sa.Connection) -> None:
    """If all destinations took it at once, the row only holds the generation of the registry."""
    register(connection, "api", "audit.*")
    register(connection, "reports", "*")
    register(connection, "gone", "*")
    d = tables().destination
    memory = {"api": [[1, ["extraction.*"]], [3, ["audit.*"]]], "gone": [[1, ["*"]], [2, None]]}
    for name, wanted in memory.items():
        connection.execute(sa.update(d).where(d.c.name == name).values(wanted=wanted))
    plain, later, retried = send(connection), send(connection), send(connection)
    deliver(connection, plain, registered=1)
    deliver(connection, later, registered=4)
    at = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    story = {
        "api": {"state": "delivered", "attempts": 2, "at": at.isoformat()},
        "b": {"state": "discarded", "attempts": 5, "at": at.isoformat()},
    }
    deliver(connection, retried, registered=1, deliveries=story)

    def shown(message_id: str) -> list[tuple[str, str, int | None]]:
        found = show_message(connection, message_id)
        assert found is not None
        return [(each.destination, each.state, each.taken_at_attempt) for each in found.deliveries]

    assert shown(plain) == [("api", "delivered", 1), ("gone", "delivered", 1), ("reports", "delivered", 1)]
    assert shown(later) == [("reports", "delivered", 1)], "what was registered when it was settled, and not what is now"
    assert shown(retried) == [("api", "delivered", 3), ("b", "discarded", None)]
    detail = show_message(connection, plain)
    assert detail is not None
    assert {each.changed_at for each in detail.deliveries} == {detail.message.settled_at}
    detail = show_message(connection, retried)
    assert detail is not None
    assert detail.deliveries[0].changed_at == at
