"""Verdicts become rows: history, retries, dead letters, and nothing where an operator was first."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import psycopg
import pytest
from support.desk import Desk, everything, ruling, seconds_until, settle, taken
from support.waiting import eventually

from outbox import emit
from relay.databases.store.refused import RefusedRow
from relay.databases.store.rows import Cursors, Row
from relay.decide.shared_state import Finding

Found = Callable[..., list[Row]]


@pytest.fixture(params=["where it was read", "wherever it lies"])
def found(request: pytest.FixtureRequest) -> Found:
    """Messages as a session settles them when every destination took them: with or without the places of their rows."""

    def read(session: Any, *message_ids: str) -> list[Row]:
        rows = session.reading.read_ready(everything(), 100).messages
        return [row for row in rows if row[0] in message_ids]

    return read if request.param == "where it was read" else lambda _, *message_ids: taken(*message_ids)


def test_what_every_destination_took_moves_to_history_with_all_its_columns(desk: Desk, found: Found) -> None:
    with desk.database.engine.begin() as connection:
        sent = emit(connection, "page.read", {"n": 1}, ordering_key="k", subject="s", headers={"tenant": "t"})
    before = desk.database.rows("SELECT * FROM outbox_message")[0]
    session = desk.owner()
    assert session.settling.settle_plain(found(session, sent))() == 1
    assert desk.states() == {}
    row = desk.history()[sent]
    for column in ("position", "type", "source", "subject", "ordering_key", "data", "headers", "created_at"):
        assert getattr(row, column) == getattr(before, column), column
    assert (row.attempts, row.deliveries) == (1, None)
    assert row.delivered_at is not None


def test_a_batch_is_settled_and_counted_and_its_neighbours_stay(desk: Desk, found: Found) -> None:
    sent = desk.emit(10)
    session = desk.owner()
    assert session.settling.settle_plain(found(session, *sent[:7]))() == 7
    assert desk.states() == dict.fromkeys(sent[7:], "ready")
    assert sorted(desk.history()) == sorted(sent[:7])


def test_a_message_that_an_operator_has_touched_since_is_not_settled(desk: Desk) -> None:
    touched, untouched = desk.emit(2)
    session = desk.owner()
    desk.put_back(touched)
    assert session.settling.settle_plain(taken(touched, untouched))() == 1
    assert desk.states() == {touched: "ready"}
    assert list(desk.history()) == [untouched]
    assert session.settling.settle_plain(taken(touched, generation=1))() == 1


def test_what_was_read_is_settled_where_it_lies_and_found_where_it_was_moved_to(desk: Desk) -> None:
    sent = desk.emit(20)
    session = desk.owner()
    rows = session.reading.read_ready(everything(), 100).messages
    moved, touched = sent[:5], sent[5]
    for message_id in moved:
        desk.database.execute("UPDATE outbox_message SET subject = 'moved' WHERE id = :id", id=message_id)
    desk.put_back(touched)
    assert session.settling.settle_plain(rows)() == 19
    assert desk.states() == {touched: "ready"}
    assert sorted(desk.history()) == sorted({*sent} - {touched})
    assert {desk.history()[message_id].subject for message_id in moved} == {"moved"}


@pytest.mark.parametrize("keep_history", [True, False])
@pytest.mark.parametrize(
    "emptying",
    [
        ["DELETE FROM outbox_message", "VACUUM outbox_message"],
        ["TRUNCATE outbox_message RESTART IDENTITY"],
    ],
)
def test_what_lies_by_now_where_another_message_was_read_stays(
    pg: Desk, emptying: list[str], *, keep_history: bool
) -> None:
    """The table was emptied and filled with new messages: with the old positions, or with new ones."""
    pg.emit(20)
    session = pg.owner(keep_history=keep_history)
    rows = session.reading.read_ready(everything(), 100).messages
    with pg.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in emptying:
            connection.exec_driver_sql(statement)
    newcomers = pg.emit(20)
    places = {row.place for row in pg.database.rows("SELECT tidsend(ctid)::text AS place FROM outbox_message")}
    assert places == {row[11] for row in rows}
    assert session.settling.settle_plain(rows)() == 0
    assert sorted(pg.states()) == sorted(newcomers)
    assert pg.history() == {}


def test_settling_is_repeated_after_deadlocks_on_the_same_rows(pg: Desk) -> None:
    session = pg.owner()
    first, second = pg.emit(2)
    rows = session.reading.read_ready(everything(), 100).messages
    lock = "SELECT id FROM outbox_message WHERE id = %s FOR UPDATE"
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(pg.database.url) as other,
        psycopg.connect(pg.database.url, autocommit=True) as onlooker,
    ):
        other.execute("SET deadlock_timeout = '1min'")  # so the relay's session finds the deadlock, and fails
        other.execute(lock, [second])
        settled = pool.submit(lambda: session.settling.settle_plain(rows)())
        for _ in range(2):
            eventually(lambda: onlooker.execute(waits).fetchone() == (1,), what="it waits for the second")
            with other.transaction(force_rollback=True):
                other.execute(lock, [first])
        other.rollback()
        assert settled.result(30) == 2
    assert (pg.states(), sorted(pg.history())) == ({}, [first, second])


def test_a_table_that_was_written_anew_is_settled_all_the_same(pg: Desk) -> None:
    gone, *sent = pg.emit(50)
    session = pg.owner()
    rows = [row for row in session.reading.read_ready(everything(), 100).messages if row[0] != gone]
    pg.database.execute("DELETE FROM outbox_message WHERE id = :id", id=gone)
    with pg.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM FULL outbox_message")
    assert session.settling.settle_plain(rows)() == 49
    assert (pg.states(), sorted(pg.history())) == ({}, sorted(sent))


def test_settling_twice_changes_nothing(desk: Desk, found: Found) -> None:
    (sent,) = desk.emit(1)
    session = desk.owner()
    rows = found(session, sent)
    assert (session.settling.settle_plain(rows)(), session.settling.settle_plain(rows)()) == (1, 0)
    assert len(desk.history()) == 1


def test_with_no_retention_nothing_is_kept(desk: Desk, found: Found) -> None:
    plain, ruled = desk.emit(2)
    session = desk.owner(keep_history=False)
    assert session.settling.settle_plain(found(session, plain))() == 1
    settle(session, ruling(ruled, "a", "delivered"))
    assert (desk.states(), desk.deliveries(), desk.history()) == ({}, {}, {})


def test_what_is_settled_ahead_is_settled_before_what_is_asked_next_is_answered(desk: Desk) -> None:
    sent = desk.emit(3)
    session = desk.owner()
    first, second, third = sorted(session.reading.read_ready(everything(), 10).messages)
    counted = session.settling.settle_plain([first, second], durable=False)
    session.reading.read_ready(everything(), 10)
    assert desk.states() == {sent[2]: "ready"}
    assert sorted(desk.history()) == sorted(sent[:2])
    assert counted() == 2
    assert session.settling.settle_plain([third])() == 1
    assert desk.states() == {}


def test_the_server_has_its_next_statement_while_a_page_is_decoded(pg: Desk) -> None:
    pg.emit(2_000, ordering_key="k")
    shard = pg.database.scalar("SELECT DISTINCT shard FROM outbox_message")
    session, cursors = pg.owner(), Cursors({shard: 0})
    first = page = session.reading.read_ready(cursors, 500).messages
    while len(page) < 500:  # it begins with a few rows of each shard
        page = session.reading.read_ready(cursors, 500).messages
        first = first + page
    begun: list[Callable[[], int]] = []

    def meanwhile() -> None:
        assert len(session.connection.executor._ahead) == 1, "the read is answered before the next statement is sent"
        begun.append(session.settling.settle_plain(first, durable=False))

    second = session.reading.read_ready(cursors, 500, meanwhile).messages
    assert len(session.connection.executor._ahead) == 1, "the server has settled before the page is decoded"
    assert [count() for count in begun] == [len(first)]
    assert not {row[0] for row in first} & {row[0] for row in second}
    assert len(pg.states()) == 2_000 - len(first)


def test_what_is_settled_ahead_is_no_part_of_a_transaction_that_fails_after_it(pg: Desk) -> None:
    plain, failed = pg.emit(2)
    session = pg.owner()
    rows = [row for row in session.reading.read_ready(everything(), 10).messages if row[0] == plain]
    counted = session.settling.settle_plain(rows)
    pg.database.execute("ALTER TABLE outbox_delivery ADD CHECK (destination <> 'a')")
    with pytest.raises(RefusedRow):
        settle(session, ruling(failed, "a", "delivered"))
    assert counted() == 1
    assert list(pg.history()) == [plain]


@pytest.mark.parametrize("way", ["plain", "ahead", "moved", "ruled", "discarded"])
def test_a_missing_partition_of_the_history_is_made_when_it_is_needed(pg: Desk, way: str) -> None:
    (sent,) = pg.emit(1)
    session = pg.owner()
    rows = session.reading.read_ready(everything(), 10).messages
    if way == "discarded":
        settle(session, ruling(sent, "a", "dead"))
        pg.put_back_delivery(sent, "discarded")
    for row in pg.database.rows("SELECT inhrelid::regclass::text AS name FROM pg_inherits"):
        if row.name.startswith("outbox_history_") and not row.name.endswith(("pkey", "idx")):
            pg.database.execute(f"DROP TABLE {row.name}")
    if way == "plain":
        session.settling.settle_plain(rows)()
    elif way == "moved":
        session.settling.settle_plain(taken(sent))()
    elif way == "ahead":
        counted = session.settling.settle_plain(rows)
        session.reading.read_ready(everything(), 10)
        assert counted() == 1
    elif way == "ruled":
        settle(session, ruling(sent, "a", "delivered"))
    else:
        session.settling.discard([(sent, "a")])
    assert list(pg.history()) == [sent]


# -------------------------------------------------------------------------------------------- verdicts


def test_a_retry_is_held_until_its_time_and_remembers_why(desk: Desk) -> None:
    sent = desk.emit_one(ordering_key="k")
    log = {"at": "2026-01-01T10:00:00.000+00:00", "attempt": 1, "verdict": "retry", "reason": "500"}
    settle(desk.owner(), ruling(sent, "a", "retry", delay_s=3600, reason="500", log=log))
    row = desk.delivery(sent)
    assert desk.states() == {sent: "held"}
    assert (row.state, row.attempts, row.reason, row.ordering_key) == ("retry", 1, "500", "k")
    assert row.position == desk.position(sent)
    assert row.first_failed_at is not None
    assert (json.loads(row.log) if isinstance(row.log, str) else row.log) == [log]
    assert seconds_until(row.due_at) == pytest.approx(3600, abs=60)


@pytest.mark.parametrize("delay_s", [0.0, 5e-324, 1e-9, 1.5e-5, 0.0004, 1 / 3, 86_400.0, 1e6 / 3])
def test_any_delay_that_jitter_yields_can_be_written(desk: Desk, delay_s: float) -> None:
    sent = desk.emit_one()
    settle(desk.owner(), ruling(sent, "a", "retry", delay_s=delay_s))
    assert seconds_until(desk.delivery(sent).due_at) == pytest.approx(delay_s, abs=60)


@pytest.mark.parametrize("state", ["parked", "blocked"])
def test_what_cannot_start_now_is_held_and_costs_nothing(desk: Desk, state: str) -> None:
    head, sent = desk.emit(2, ordering_key="k")
    session = desk.owner()
    settle(session, ruling(head, "a", "retry", delay_s=3600))
    settle(session, ruling(sent, "a", state))
    row = desk.delivery(sent)
    assert desk.states()[sent] == "held"
    assert (row.state, row.attempts, row.reason, row.first_failed_at) == (state, 0, None, None)


def test_a_dead_letter_is_held_with_its_reason(desk: Desk) -> None:
    sent = desk.emit_one()
    settle(desk.owner(), ruling(sent, "a", "dead", reason="refused: 422 for 'c-17' after 3 s"))
    row = desk.delivery(sent)
    assert desk.states() == {sent: "held"}
    assert (row.state, row.attempts, row.due_at) == ("dead", 1, None)
    assert row.reason == "refused: 422 for 'c-17' after 3 s"


def test_failures_of_one_cause_have_one_fingerprint(desk: Desk) -> None:
    one, two, other = desk.emit(3)
    session = desk.owner()
    settle(
        session,
        ruling(one, "a", "dead", reason="no content 'c-17' (attempt 3)"),
        ruling(two, "a", "dead", reason="no content 'c-42' (attempt 9)"),
        ruling(other, "a", "dead", reason="no extraction 'c-42' (attempt 9)"),
    )
    prints = [desk.delivery(i).fingerprint for i in (one, two, other)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("reason", ["nul \x00 inside", "half a pair \ud83d", "😀 é \\u0000 \" '", "x" * 1_000_000])
def test_no_reason_that_the_world_can_give_breaks_the_session(desk: Desk, reason: str) -> None:
    sent = desk.emit_one()
    session = desk.owner()
    log = {"attempt": 1, "verdict": "dead", "reason": reason, "detail": reason[:500]}
    settle(session, ruling(sent, "a", "dead", reason=reason, log=log))
    assert desk.delivery(sent).state == "dead"
    desk.register("a")
    session.ownership.report(Finding("a", "paused", reason, 1.0))
    assert desk.database.scalar("SELECT state FROM outbox_destination") == "paused"


def test_the_whole_story_of_a_retried_message_ends_in_history(desk: Desk) -> None:
    sent = desk.emit_one()
    session = desk.owner()
    settle(session, ruling(sent, "a", "retry"))
    first_failed_at = desk.delivery(sent).first_failed_at
    settle(session, ruling(sent, "a", "retry", attempts=2, reason="again"), fresh=False)
    assert (desk.delivery(sent).attempts, desk.delivery(sent).first_failed_at) == (2, first_failed_at)
    settle(session, ruling(sent, "a", "delivered", attempts=2), fresh=False)
    assert (desk.states(), desk.deliveries()) == ({}, {})
    row = desk.history()[sent]
    deliveries = json.loads(row.deliveries) if isinstance(row.deliveries, str) else row.deliveries
    taken_at = datetime.fromisoformat(deliveries["a"].pop("at"))
    assert (row.attempts, row.outcome, deliveries) == (3, None, {"a": {"state": "delivered", "attempts": 2}})
    assert abs(seconds_until(taken_at)) < 60


def test_a_delivery_remembers_its_last_twenty_attempts(desk: Desk) -> None:
    sent = desk.emit_one()
    session = desk.owner()
    for n in range(1, 26):
        log = {"attempt": n}
        settle(session, ruling(sent, "a", "retry", attempts=n, log=log), fresh=n == 1)
    log = desk.delivery(sent).log
    log = json.loads(log) if isinstance(log, str) else log
    assert [each["attempt"] for each in log] == list(range(6, 26))


def test_each_of_two_destinations_has_its_own_fate(desk: Desk) -> None:
    sent = desk.emit_one()
    session = desk.owner()
    settle(session, ruling(sent, "a", "delivered"), ruling(sent, "b", "retry"))
    assert desk.deliveries() == {(sent, "a"): "delivered", (sent, "b"): "retry"}
    assert desk.states() == {sent: "held"}
    postgres, sqlite = "changed_at - interval '1 hour'", "datetime(changed_at, '-1 hour') || '.000'"
    an_hour_ago = postgres if desk.kind == "postgres" else sqlite
    desk.database.execute(f"UPDATE outbox_delivery SET changed_at = {an_hour_ago}")
    settle(session, ruling(sent, "b", "delivered", attempts=1), fresh=False)
    assert (desk.states(), desk.deliveries()) == ({}, {})
    row = desk.history()[sent]
    deliveries = json.loads(row.deliveries) if isinstance(row.deliveries, str) else row.deliveries
    assert {name: (each["state"], each["attempts"]) for name, each in deliveries.items()} == {
        "a": ("delivered", 0),
        "b": ("delivered", 1),
    }
    assert deliveries["a"]["at"] < deliveries["b"]["at"]


@pytest.mark.parametrize("first", ["retry", "dead", "parked"])
@pytest.mark.parametrize("second", ["retry", "dead", "parked", "delivered"])
def test_a_message_stays_until_every_destination_has_it(desk: Desk, first: str, second: str) -> None:
    sent = desk.emit_one()
    settle(desk.owner(), ruling(sent, "a", first), ruling(sent, "b", second))
    assert desk.deliveries() == {(sent, "a"): first, (sent, "b"): second}
    assert desk.states() == {sent: "held"}
    assert desk.history() == {}


def test_many_messages_and_verdicts_are_settled_together(desk: Desk) -> None:
    sent = desk.emit(30)
    ruled = [ruling(i, d, "delivered" if n % 3 or d == "a" else "dead") for n, i in enumerate(sent) for d in "ab"]
    settle(desk.owner(), *ruled)
    assert sorted(desk.history()) == sorted(i for n, i in enumerate(sent) if n % 3)
    assert sorted(desk.states()) == sorted(sent[::3])


def test_what_is_parked_is_reported_so_that_it_is_read_back(desk: Desk) -> None:
    sent = desk.emit(2)
    session, cursors = desk.owner(), everything()
    rows = {row[0]: row for row in session.reading.read_ready(cursors, 10).messages}
    parked = settle(session, ruling(sent[0], "a", "parked"), ruling(sent[1], "a", "retry"))
    assert list(parked) == [("a", rows[sent[0]][2], rows[sent[0]][1])]


def test_what_another_destination_parked_before_is_not_reported_again(desk: Desk) -> None:
    """It may have been tried: the reader passes it by."""
    sent, session = desk.emit_one(), desk.owner()
    for destination in "ab":
        parked = settle(session, ruling(sent, destination, "parked"), fresh=destination == "a")
        assert [name for name, *_ in parked] == [destination]


@pytest.mark.parametrize("verdict", ["delivered", "retry", "dead", "parked"])
def test_a_verdict_on_a_message_that_an_operator_has_touched_changes_nothing(desk: Desk, verdict: str) -> None:
    sent = desk.emit_one()
    session = desk.owner()
    desk.put_back(sent)
    settle(session, ruling(sent, "a", verdict))
    assert (desk.states(), desk.deliveries()) == ({sent: "ready"}, {})


@pytest.mark.parametrize("verdict", ["delivered", "retry", "dead"])
def test_a_verdict_on_a_delivery_that_an_operator_has_touched_changes_nothing(desk: Desk, verdict: str) -> None:
    sent = desk.emit_one()
    session = desk.owner()
    settle(session, ruling(sent, "a", "retry"))
    desk.put_back_delivery(sent, "parked")
    settle(session, ruling(sent, "a", verdict, attempts=2), fresh=False)
    row = desk.delivery(sent)
    assert (row.state, row.attempts) == ("parked", 1)
    settle(session, ruling(sent, "a", "delivered", attempts=1, generation=1), fresh=False)
    assert list(desk.history()) == [sent]


def test_a_verdict_on_a_message_that_is_gone_changes_nothing(desk: Desk) -> None:
    sent = desk.emit_one()
    session = desk.owner()
    session.settling.settle_plain(taken(sent))()
    for verdict in ("retry", "dead", "parked"):
        settle(session, ruling(sent, "a", verdict))
    assert (desk.states(), desk.deliveries()) == ({}, {})


def test_a_message_of_which_something_is_set_aside_is_not_plain_any_more(desk: Desk, found: Found) -> None:
    """A former owner recorded that one destination took it; the present owner knows that all of them did."""
    sent = desk.emit_one(ordering_key="k")
    session = desk.owner()
    rows = found(session, sent)
    settle(session, ruling(sent, "a", "delivered"), ruling(sent, "b", "parked"))
    assert session.settling.settle_plain(rows)() == 0
    settle(session, ruling(sent, "a", "delivered"), ruling(sent, "b", "delivered"))
    assert (desk.states(), desk.deliveries(), list(desk.history())) == ({}, {}, [sent])


def test_a_message_whose_setting_aside_is_forgotten_is_not_settled_by_half(desk: Desk) -> None:
    """A crashed server forgets commits that did not wait for its disk; the relay still knows what it sent."""
    sent, session = desk.emit_one(), desk.owner()
    settle(session, ruling(sent, "a", "parked"), ruling(sent, "b", "parked"))
    desk.database.execute("DELETE FROM outbox_delivery")
    desk.database.execute("UPDATE outbox_message SET state = 'ready'")
    settle(session, ruling(sent, "a", "delivered"), fresh=False)
    assert desk.states() == {sent: "ready"}
    assert desk.deliveries() == {}
    assert desk.history() == {}
