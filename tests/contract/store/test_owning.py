"""A session owns what it takes, is woken, and notices when another session answers for it."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from support.desk import ALL, Desk, everything, ruling, seconds_until, settle, take, taken
from support.waiting import eventually

from outbox import emit
from relay.databases.store.contract import Lost, Standby
from relay.databases.store.records import Batch
from relay.databases.store.rows import Page
from relay.decide.rate import Rate
from relay.decide.shared_state import Finding

LEASE_MS = {  # with a lease of nine seconds
    "idle_session_timeout": 9000,
    "idle_in_transaction_session_timeout": 9000,
    "statement_timeout": 9000,
    "lock_timeout": 3000,
    "tcp_user_timeout": 9000,
    "client_connection_check_interval": 1800,
}


def test_a_session_takes_what_is_free_and_never_the_same_twice(desk: Desk) -> None:
    session = desk.open()
    assert take(session, [1, 2, 3]) == [1, 2, 3]
    assert take(session, [2, 3, 4]) == [4]


def test_what_was_taken_twice_is_free_after_it_was_given_once(pg: Desk) -> None:
    first, second = pg.open("one"), pg.open("two")
    first.ownership.take([5])
    first.ownership.take([5])
    assert take(second, [5]) == []
    first.ownership.give([5])
    assert take(second, [5]) == [5]


def test_a_session_that_ends_lets_go_of_everything(pg: Desk) -> None:
    first, second = pg.owner("one"), pg.open("two")
    assert take(second, ALL) == []
    first.close()
    found: list[int] = []  # the server releases one lock after the other

    def has_all() -> bool:
        found.extend(take(second, ALL))
        return sorted(found) == list(ALL)

    eventually(has_all)


def test_one_relay_a_file_and_the_next_takes_over_when_it_ends(lite: Desk) -> None:
    first = lite.owner("one")
    with pytest.raises(Standby, match="stands by"):
        lite.open("two")
    first.close()
    lite.owner("two")


def test_a_taken_shard_is_dirty_until_it_is_handed_back(desk: Desk) -> None:
    session = desk.open("relay-1")
    session.ownership.take([7, 8])
    session.ownership.give([8])
    rows = desk.database.rows("SELECT shard, dirty, owner FROM outbox_shard WHERE shard IN (7, 8) ORDER BY shard")
    assert [(r.shard, bool(r.dirty), r.owner) for r in rows] == [(7, True, "relay-1"), (8, False, None)]


def test_a_beat_shows_who_is_alive_what_is_held_and_what_is_registered(desk: Desk) -> None:
    desk.register("a", "b", generation=4)
    desk.database.execute(
        "UPDATE outbox_destination SET state = 'paused', reason = 'lunch', paused_by = 'operator' WHERE name = 'b'"
    )
    session = desk.open()
    session.ownership.take([1, 2])
    peers = session.ownership.beat([1, 2], 3)
    assert peers.held == {1, 2}
    assert (peers.wants_of, peers.generation) == ({peers.me: 3}, 4)
    assert {name: shared_state.reason for name, shared_state in peers.shared_states.items()} == {
        "a": None,
        "b": "lunch",
    }
    assert desk.database.scalar("SELECT count(*) FROM outbox_relay WHERE id = 'relay-1'") == 1


def test_a_beat_shows_the_others(pg: Desk) -> None:
    first, second = pg.open("one"), pg.open("two")
    first.ownership.take([1])
    second.ownership.take([2])
    mine, theirs = first.ownership.beat([1], 5), second.ownership.beat([2], 6)
    assert mine.me != theirs.me
    assert theirs.wants_of == {mine.me: 5, theirs.me: 6}
    assert theirs.held == {1, 2}


def test_the_server_is_told_to_end_a_session_that_says_or_takes_nothing_for_a_lease(pg: Desk) -> None:
    session = pg.open(lease_s=9.0)
    rows = session.connection.bare.execute(
        "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(LEASE_MS),)
    )
    assert dict(rows.fetchall()) == {name: str(ms) for name, ms in LEASE_MS.items()}


def test_a_closed_session_leaves_no_trace(desk: Desk) -> None:
    desk.open().close()
    assert desk.database.scalar("SELECT count(*) FROM outbox_relay") == 0


# ---------------------------------------------------------------------------------------------- waking


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_commit_wakes_a_relay_that_sleeps(desk: Desk, pipe: tuple[int, int]) -> None:
    session = desk.owner()
    session.waking.sleep_s(1.0, 0.01)
    session.waking.wait(0, pipe[0])
    desk.emit(1)
    assert session.waking.wait(30, pipe[0])


def test_a_worker_pays_nothing_while_every_relay_is_awake(pg: Desk, pipe: tuple[int, int]) -> None:
    session = pg.owner()
    session.waking.sleep_s(1.0, 0.01)
    session.waking.awake()
    with psycopg.connect(pg.database.url, autocommit=True) as listening:
        listening.execute("LISTEN outbox_wake")
        pg.emit(1)
        listening.execute("NOTIFY outbox_wake, 'the end'")
        assert [n.payload for n in listening.notifies(timeout=30, stop_after=1)] == ["the end"]


def test_a_relay_sleeps_long_only_when_no_transaction_can_have_missed_that_it_sleeps(pg: Desk) -> None:
    session = pg.owner()
    with pg.database.engine.connect() as slow:
        emit(slow, "page.read", {})
        assert session.waking.sleep_s(1.0, 0.01) == 0.01
        assert session.waking.sleep_s(1.0, 0.01) < 0.1
        slow.commit()
    # Later: the server may have other transactions, such as those of autovacuum.
    eventually(lambda: session.waking.sleep_s(1.0, 0.01) == 1.0)


def test_a_relay_is_woken_through_its_own_pipe_too(desk: Desk, pipe: tuple[int, int]) -> None:
    session = desk.owner()
    session.waking.wait(0, pipe[0])
    os.write(pipe[1], b"x")
    assert not session.waking.wait(10, pipe[0])


def test_a_page_is_true_when_it_holds_anything() -> None:
    assert not Page()
    assert all([Page(messages=[()]), Page(deliveries=[()]), Page(discarded=[("a", "b")]), Page(unparked={"a"})])


# ---------------------------------------------------------------------------------------------- health


def test_a_destinations_health_is_shown_and_its_recovery_too(desk: Desk) -> None:
    desk.register("a", "b")
    session = desk.owner()
    session.ownership.report(Finding("a", "paused", "connection refused", 30.0))
    rows = {r.name: r for r in desk.database.rows("SELECT * FROM outbox_destination")}
    assert (rows["a"].state, rows["a"].reason, rows["a"].paused_by) == ("paused", "connection refused", "failure")
    assert seconds_until(rows["a"].until) == pytest.approx(30, abs=20)
    assert rows["b"].state == "healthy"
    session.ownership.report(Finding("a", "healthy", is_probe=True))
    (row,) = desk.database.rows("SELECT * FROM outbox_destination WHERE name = 'a'")
    assert (row.state, row.reason, row.paused_by, row.until) == ("healthy", None, None, None)


def test_what_an_operator_paused_stays_as_the_operator_left_it(desk: Desk) -> None:
    desk.register("a")
    desk.database.execute("UPDATE outbox_destination SET state = 'paused', reason = 'lunch', paused_by = 'operator'")
    session = desk.owner()
    session.ownership.report(Finding("a", "healthy", is_probe=True))
    session.ownership.report(Finding("a", "throttled", "429", 5.0))
    shared_state = session.ownership.beat([], 0).shared_states["a"]
    assert (shared_state.state, shared_state.paused_by, shared_state.reason) == ("paused", "operator", "lunch")


# ------------------------------------------------------------------------------------- a stale session


OWNER_ONLY: list[tuple[str, Callable[[Any, str], object]]] = [
    ("beat", lambda session, _: session.ownership.beat([], 0)),
    ("take", lambda session, _: session.ownership.take([1])),
    ("settle", lambda session, sent: settle(session, ruling(sent, "a", "dead"))),
    ("discard", lambda session, sent: session.settling.discard([(sent, "a")])),
    ("mark_unrouted", lambda session, sent: session.settling.mark_unrouted([(sent, 0)])),
    ("report", lambda session, _: session.ownership.report(Finding("a", "paused", "boom", 1.0))),
]


@pytest.mark.parametrize(("name", "act"), OWNER_ONLY, ids=[name for name, _ in OWNER_ONLY])
def test_another_session_that_answers_for_ours_changes_nothing(
    pg: Desk, name: str, act: Callable[[Any, str], object]
) -> None:
    """The token is missing, as behind a pooler or after an unnoticed reconnect."""
    pg.register("a")
    sent = pg.emit_one()
    session = pg.open()
    session.connection.bare.execute("SELECT set_config('outbox.owner', 'another session', false)")
    if name in ("beat", "settle", "discard"):
        with pytest.raises(Lost):
            act(session, sent)
    else:
        act(session, sent)
    assert (pg.states(), pg.deliveries()) == ({sent: "ready"}, {})
    assert pg.database.scalar("SELECT state FROM outbox_destination") == "healthy"
    assert pg.database.scalar("SELECT count(*) FROM outbox_shard WHERE relay IS NOT NULL") == 0


@pytest.mark.parametrize("limit", [0, 10])
@pytest.mark.parametrize("looks", [0, 2])
def test_a_look_that_another_session_answers_is_lost_and_reads_nothing(pg: Desk, limit: int, looks: int) -> None:
    session, cursors = pg.owner(), everything()
    for _ in range(looks):
        session.reading.read_ready(cursors, limit)
    pg.emit(3)
    session.connection.bare.execute("SELECT set_config('outbox.owner', 'another session', false)")
    with pytest.raises(Lost):
        session.reading.read_ready(cursors, limit)


def test_nothing_that_is_due_or_parked_is_read_by_another_session(pg: Desk) -> None:
    parked, retried = pg.emit(2)
    pg.emit(1, due_at=datetime.now(UTC) - timedelta(seconds=5))
    session, cursors = pg.owner(), everything()
    session.reading.read_ready(cursors, 10)
    settle(session, ruling(parked, "a", "parked"), ruling(retried, "a", "retry"))
    pg.make_due(retried)
    session.connection.bare.execute("SELECT set_config('outbox.owner', 'another session', false)")
    assert not session.reading.read_due(list(ALL), 10)
    assert not session.reading.read_parked(cursors, ["a"], 10)
    session.connection.bare.execute("SELECT set_config('outbox.owner', %s, false)", (session.connection.token,))
    session.reading.reread_due()
    assert len(session.reading.read_parked(cursors, ["a"], 10)) == 1
    due = session.reading.read_due(list(ALL), 10)
    assert (len(due.messages), len(due.deliveries)) == (1, 1)


def test_another_session_that_answers_for_ours_hands_nothing_back(pg: Desk) -> None:
    session = pg.open()
    session.ownership.take([1])
    session.connection.bare.execute("SELECT set_config('outbox.owner', 'another session', false)")
    session.ownership.give([1])
    assert pg.database.scalar("SELECT dirty FROM outbox_shard WHERE shard = 1")


def test_a_taken_message_may_be_settled_by_any_session(pg: Desk) -> None:
    sent = pg.emit_one()
    session = pg.open()
    session.connection.bare.execute("SELECT set_config('outbox.owner', 'another session', false)")
    assert session.settling.settle_plain(taken(sent))() == 1


METHODS: list[tuple[str, Callable[[Any], object]]] = [
    ("beat", lambda s: s.ownership.beat([], 0)),
    ("take", lambda s: s.ownership.take([1])),
    ("note", lambda s: s.ownership.note({1: None})),
    ("give", lambda s: s.ownership.give([1])),
    ("read_ready", lambda s: s.reading.read_ready(everything(), 10)),
    ("read_parked", lambda s: s.reading.read_parked(everything(), ["a"], 10)),
    ("read_due", lambda s: s.reading.read_due([1], 10)),
    ("held_keys", lambda s: s.reading.held_keys(["k"], ["a"])),
    ("sweep", lambda s: s.settling.sweep(0, [1], [1])),
    ("settle_plain", lambda s: s.settling.settle_plain(taken("0197c0de-0000-7000-8000-000000000000"))()),
    ("settle", lambda s: s.settling.settle(Batch([], []))),
    ("discard", lambda s: s.settling.discard([])),
    ("mark_unrouted", lambda s: s.settling.mark_unrouted([])),
    ("report", lambda s: s.ownership.report(Finding("a", "healthy"))),
    ("claim_probe", lambda s: s.ownership.claim_probe("a")),
    ("claim_rate", lambda s: s.ownership.claim_rate("a", 1, Rate(1.0, 1))),
    ("sleep_s", lambda s: s.waking.sleep_s(1.0, 0.1)),
]


@pytest.mark.parametrize(("name", "act"), METHODS, ids=[name for name, _ in METHODS])
def test_a_session_without_a_backend_reports_that_for_every_statement(
    pg: Desk, name: str, act: Callable[[Any], object]
) -> None:
    session = pg.open()
    _end(pg, session)
    with pytest.raises(Lost):
        act(session)
    session.close()


def test_a_session_that_waits_learns_at_once_that_its_backend_is_gone(pg: Desk, pipe: tuple[int, int]) -> None:
    session = pg.open()
    _end(pg, session)
    with pytest.raises(Lost):
        _wait_on_and_on(session, pipe[0])


def _wait_on_and_on(session: Any, wake_fd: int) -> None:
    for _ in range(10):
        session.waking.wait(10, wake_fd)


def _end(desk: Desk, session: Any) -> None:
    pid = session.connection.bare.info.backend_pid
    desk.database.scalar("SELECT pg_terminate_backend(:pid)", pid=pid)
    eventually(lambda: not desk.database.scalar("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid", pid=pid))
