"""Scheduled and retried messages are read when they are due: all of them, once, in order."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.desk import ALL, Desk, everything, ids, read_all, ruling, settle, taken
from support.waiting import eventually

from outbox import emit
from relay.databases.store.rows import Cursors


def test_a_scheduled_message_is_read_when_it_is_due_and_not_before(desk: Desk) -> None:
    due, later = desk.emit(2, delay=3600)
    session, cursors = desk.owner(), everything()
    assert not session.reading.read_ready(cursors, 10)
    assert not session.reading.read_due(list(ALL), 10)
    desk.make_due(due, "outbox_message")
    session.reading.reread_due()
    assert ids(session.reading.read_due(list(ALL), 10).messages) == [due]
    assert not session.reading.read_due(list(ALL), 10)
    assert session.settling.settle_plain(taken(due))() == 1
    assert desk.states() == {later: "scheduled"}


@pytest.mark.parametrize("limit", [1, 4, 100])
def test_many_messages_due_at_one_instant_are_all_read_page_by_page(desk: Desk, limit: int) -> None:
    sent = desk.emit(10, due_at=datetime.now(UTC) - timedelta(seconds=5))
    session = desk.owner()
    found: list[str] = []
    while page := session.reading.read_due(list(ALL), limit):
        assert len(page.messages) <= limit
        found += ids(page.messages)
    assert found == sent


def test_messages_are_read_in_the_order_of_their_due_dates(desk: Desk) -> None:
    now = datetime.now(UTC)
    sent = [desk.emit_one(due_at=now - timedelta(seconds=n)) for n in (1, 3, 2)]
    assert ids(desk.owner().reading.read_due(list(ALL), 10).messages) == [sent[1], sent[2], sent[0]]


def test_a_message_that_was_due_before_the_last_one_read_is_read_all_the_same(desk: Desk) -> None:
    """It was committed after the poll, with a due date in the past, or a delay shorter than its transaction."""
    now = datetime.now(UTC)
    session, cursors = desk.owner(), everything()
    first = desk.emit_one(due_at=now - timedelta(seconds=1))
    assert _look(session, cursors) == [first]
    assert _look(session, cursors) == []
    second = desk.emit_one(due_at=now - timedelta(hours=1))
    assert _look(session, cursors) == [second]
    assert _look(session, cursors) == []


def test_a_message_that_was_due_before_the_first_poll_is_read_if_it_is_committed_during_that_poll(desk: Desk) -> None:
    """Due messages are read before the first look at the ready ones: it was in the past of that look."""
    session, cursors = desk.owner(), everything()
    assert not session.reading.read_due(list(cursors.ready), 10)
    sent = desk.emit_one(due_at=datetime.now(UTC) - timedelta(hours=1))
    found = ids(session.reading.read_ready(cursors, 10).messages)
    assert (found or _look(session, cursors)) == [sent]
    assert _look(session, cursors) == []


def _look(session: Any, cursors: Cursors) -> list[str]:
    """Poll once, in the order in which the relay does."""
    due = session.reading.read_due(list(cursors.ready), 10)
    ready = session.reading.read_ready(cursors, 10)
    return [*ids(due.messages), *ids(ready.messages)]


def test_a_retry_is_read_when_it_is_due_with_its_record(desk: Desk) -> None:
    sent, other = desk.emit(2)
    session = desk.owner()
    settle(session, ruling(sent, "a", "retry", delay_s=3600), ruling(other, "b", "retry", delay_s=3600))
    assert not session.reading.read_due(list(ALL), 10)
    desk.make_due(sent)
    session.reading.reread_due()
    (row,) = session.reading.read_due(list(ALL), 10).deliveries
    assert (row[0], row[14], row[15], row[16]) == (sent, "a", 0, 1)
    assert not session.reading.read_due(list(ALL), 10)


@pytest.mark.parametrize("limit", [1, 4, 100])
def test_retries_due_at_one_instant_are_all_read_page_by_page(desk: Desk, limit: int) -> None:
    sent = desk.emit(10)
    session = desk.owner()
    settle(session, *(ruling(i, "a", "retry", delay_s=3600) for i in sent))
    desk.make_all_due()
    session.reading.reread_due()
    found: list[str] = []
    while page := session.reading.read_due(list(ALL), limit):
        found += ids(page.deliveries)
    assert found == sent


def test_a_retry_written_after_the_last_look_is_found_however_short_its_wait(desk: Desk) -> None:
    sent = desk.emit(30)
    session = desk.owner()
    found: list[str] = []
    for message_id in reversed(sent):
        settle(session, ruling(message_id, "a", "retry", delay_s=0.0))
        found += ids(session.reading.read_due(list(ALL), 100).deliveries)
    eventually(lambda: found.extend(ids(session.reading.read_due(list(ALL), 100).deliveries)) or len(found) >= 30)
    assert sorted(set(found)) == sorted(sent)


def test_a_clock_that_is_set_back_keeps_nothing_from_being_read(desk: Desk) -> None:
    retried, scheduled = desk.emit_one(), desk.emit_one(delay=3600)
    session = desk.owner()
    settle(session, ruling(retried, "a", "retry", delay_s=3600))
    desk.make_due(retried)
    desk.make_due(scheduled, "outbox_message")
    session.reading._retries = session.reading._scheduled = (
        "2100-01-01 00:00:00",
        1,
        "a",
    )  # as far as the clock had come
    found = session.reading.read_due(list(ALL), 10)
    assert (ids(found.messages), ids(found.deliveries)) == ([scheduled], [retried])


def test_a_retry_from_before_the_clock_was_set_back_is_due(desk: Desk) -> None:
    """Its own time may be years away, and its key would be blocked until then."""
    misdated, other = desk.emit(2)
    session = desk.owner()
    settle(session, *(ruling(i, "a", "retry", delay_s=3600) for i in (misdated, other)))
    assert not session.reading.read_due(list(ALL), 10)
    future = "due_at = '2100-01-01 00:00:01', changed_at = '2100-01-01 00:00:00'"
    desk.database.execute(f"UPDATE outbox_delivery SET {future} WHERE message_id = :id", id=misdated)
    session.settling.sweep(0, list(ALL), [])
    eventually(lambda: ids(session.reading.read_due(list(ALL), 10).deliveries) == [misdated])
    session.settling.sweep(0, list(ALL), [])
    assert not session.reading.read_due(list(ALL), 10)


def test_a_message_scheduled_after_the_clock_was_set_back_is_not_sent_early(lite: Desk) -> None:
    session, cursors = lite.owner(), everything()
    session.reading._scheduled = ("2100-01-01 00:00:00", 1, "")
    lite.emit_one(delay=3600)
    assert _look(session, cursors) == []


def test_two_destinations_of_one_message_are_both_read_when_they_are_due_together(desk: Desk) -> None:
    sent = desk.emit_one()
    session = desk.owner()
    settle(session, *(ruling(sent, d, "retry", delay_s=3600) for d in "abc"))
    desk.make_all_due()
    session.reading.reread_due()
    found: list[str] = []
    while page := session.reading.read_due(list(ALL), 1):
        found += [row[14] for row in page.deliveries]
    assert sorted(found) == ["a", "b", "c"]


def test_only_due_messages_of_the_shards_that_are_asked_for_are_read(pg: Desk) -> None:
    pg.emit(100, due_at=datetime.now(UTC) - timedelta(seconds=5))
    found = ids(pg.owner().reading.read_due([3, 9], 100).messages)
    expected = pg.database.rows("SELECT id FROM outbox_message WHERE shard IN (3, 9)")
    assert sorted(found) == sorted(str(r.id) for r in expected)


LARGE = "x" * 200_000


def test_what_is_due_or_parked_is_read_in_pages_of_bytes_and_none_is_lost(desk: Desk) -> None:
    with desk.database.engine.begin() as connection:
        sent = [emit(connection, "page.read", {"text": LARGE}) for _ in range(24)]
        past = datetime.now(UTC) - timedelta(seconds=5)
        later = [emit(connection, "page.read", {"text": LARGE}, due_at=past) for _ in range(12)]
    session, cursors = desk.owner(), everything()
    read_all(session, cursors)
    settle(session, *(ruling(i, "a", "retry") for i in sent[12:]))
    desk.make_all_due()
    settle(session, *(ruling(i, "a", "parked") for i in sent[:12]))
    session.reading.reread_due()
    parked, scheduled, retries = [], [], []
    while rows := session.reading.read_parked(cursors, ["a"], 100):
        parked.append(rows)
    while page := session.reading.read_due(list(ALL), 100):
        assert page.full == (len(page.messages) == 6 or len(page.deliveries) == 6)
        scheduled.append(page.messages)
        retries.append(page.deliveries)
    for pages, expected in ((parked, sent[:12]), (scheduled, later), (retries, sent[12:])):
        assert [ids(page) for page in pages if page] == [expected[:6], expected[6:]]


def test_what_comes_late_is_read_in_pages_of_bytes_and_none_is_lost(desk: Desk) -> None:
    session, cursors = desk.owner(), everything()
    with desk.database.engine.begin() as connection:
        sent = [emit(connection, "page.read", {"text": LARGE}, ordering_key="k") for _ in range(12)]
    read_all(session, cursors)
    session.settling.mark_unrouted([(i, 0) for i in sent])
    session.reading.read_ready(cursors, 100)
    for message_id in sent:
        desk.put_back(message_id)
    pages = read_all(session, cursors)
    assert max(len(page) for page in pages) <= 12
    assert all(len(page) <= 6 for page in pages[1:])
    assert set(sent) == {row[0] for page in pages for row in page}
