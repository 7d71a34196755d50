"""What operators are told is true, adds up, and is the same on both databases."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from support.databases import Database

from outbox import emit
from outbox.tables import tables
from relay.operations import (
    DestinationStatus,
    Status,
    grants,
    list_messages,
    live_relays,
    show_message,
    snapshot,
    status,
)

HOUR = timedelta(hours=1)


@pytest.fixture
def connection(database: Database) -> Iterator[sa.Connection]:
    with database.engine.connect() as connection:
        yield connection


def register(connection: sa.Connection, name: str, *events: str) -> None:
    connection.execute(
        sa.insert(tables().destination).values(name=name, kind="listener", events=list(events), generation=1)
    )


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


def deliver(connection: sa.Connection, message_id: str) -> None:
    """Move a message to the history."""
    message, history = tables().message, tables().history
    row = connection.execute(sa.select(message).where(message.c.id == message_id)).one()
    shared = {c.name: getattr(row, c.name) for c in history.c if c.name in message.c}
    connection.execute(sa.insert(history).values(**shared, attempts=1))
    connection.execute(sa.delete(message).where(message.c.id == message_id))


def now(connection: sa.Connection) -> datetime:
    return datetime.now(UTC)


def test_an_empty_outbox_is_all_zeros(connection: sa.Connection) -> None:
    assert status(connection) == Status()


def test_every_message_counts_once(connection: sa.Connection) -> None:
    register(connection, "api", "extraction.*")
    register(connection, "reports", "*")
    ids = [send(connection) for _ in range(8)]
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
    set_aside(connection, half_dead, "reports", "parked")
    become(connection, unrouted, "unrouted")
    deliver(connection, delivered)
    set_aside(connection, done_at_api, "api", "delivered")

    found = status(connection)

    assert (found.waiting, found.dead, found.unrouted, found.delivered) == (5, 2, 1, 1)
    assert found.waiting + found.dead + found.unrouted + found.delivered == 9
    assert (found.scheduled, found.parked, found.retrying) == (1, 2, 2)
    # api: ready, scheduled, parked, retrying; reports: ready, scheduled, done_at_api, retrying, half_dead
    assert found.destinations["api"] == DestinationStatus("healthy", None, waiting=4, dead=2)
    assert found.destinations["reports"] == DestinationStatus("healthy", None, waiting=5, dead=0)


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


def test_only_relays_that_beat_are_alive(connection: sa.Connection) -> None:
    table = tables().relay
    for name, shards, age in (("first", [3, 1, 2], 0), ("silent", [4], 60), ("second", [], 5)):
        connection.execute(
            sa.insert(table).values(
                id=name,
                release="0.1.0",
                shards=shards,
                last_seen_at=now(connection) - timedelta(seconds=age),
                **({"number": age + 1} if connection.dialect.name == "sqlite" else {}),
            )
        )
    found = live_relays(connection, alive_within_s=30)
    assert [(relay.id, relay.shards) for relay in found] == [("first", [1, 2, 3]), ("second", [])]
    assert 4 < found[1].last_seen_s < 9
    assert status(connection).relays[0].id == "first"


@pytest.mark.parametrize("data", ["[" * 2000 + "]" * 2000, f"[{'1' * 5000}]"], ids=["deep", "long"])
def test_messages_are_listed_whatever_their_data(postgres_database: Database, data: str) -> None:
    """SQL may write what Python cannot parse; one such message was the end of `messages list`."""
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
    assert [row.id for row in list_messages(connection, type_="audit.*")] == [third, second]
    assert [row.id for row in list_messages(connection, type_="audit.a_b")] == [second]
    assert [row.id for row in list_messages(connection, type_="audit.a_*")] == [second]
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


def test_status_is_json_as_it_stands(connection: sa.Connection) -> None:
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


def test_what_was_discarded_is_in_the_history_and_is_not_counted_as_delivered(database: Database) -> None:
    summaries = [None, '{"a": {"state": "delivered"}}', '{"a":{"state":"delivered"}}', '{"a": {"state": "discarded"}}']
    for number, summary in enumerate(summaries):
        database.execute(
            "INSERT INTO outbox_history (id, position, type, source, data, headers, created_at, attempts, deliveries) "
            "VALUES (:id, 1, 'x.y', 'outbox', '{}', '{}', CURRENT_TIMESTAMP, 1, :deliveries)",
            id=f"0197c0de-0000-7000-8000-00000000000{number}",
            deliveries=summary,
        )
    with database.engine.connect() as connection:
        assert status(connection).delivered == 3
