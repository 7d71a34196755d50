"""What cannot be delivered now is set aside, read back, and finished when an operator says so."""

import json
from datetime import UTC, datetime, timedelta

from support.desk import ALL, Desk, everything, ids, ruling, settle


def test_what_is_parked_is_read_back_in_order_with_its_record(desk: Desk) -> None:
    sent = desk.emit(4, ordering_key="k")
    session, cursors = desk.owner(), everything()
    session.reading.read_ready(cursors, 10)
    settle(session, ruling(sent[0], "a", "retry", reason="500"))
    settle(session, ruling(sent[0], "a", "parked", attempts=1), fresh=False)
    settle(session, *(ruling(i, "a", "parked") for i in sent[1:]))
    rows = session.reading.read_parked(cursors, ["a"], 10)
    assert ids(rows) == sent
    assert [row[14:16] for row in rows] == [("a", 0)] * 4
    assert [row[16] for row in rows] == [1, 0, 0, 0]
    assert 0 <= rows[0][17] < 60
    assert session.reading.read_parked(cursors, ["a"], 10) == []


def test_what_is_parked_is_read_back_in_pages(desk: Desk) -> None:
    sent = desk.emit(20)
    session, cursors = desk.owner(), everything()
    session.reading.read_ready(cursors, 100)
    settle(session, *(ruling(i, d, "parked") for i in sent for d in "ab"))
    found = []
    while rows := session.reading.read_parked(cursors, ["a", "b"], 7):
        assert len(rows) <= 7
        found += [(row[0], row[14]) for row in rows]
    assert sorted(found) == sorted((i, d) for i in sent for d in "ab")
    assert [i for i, d in found if d == "a"] == sent


def test_only_the_destinations_that_have_room_are_read_back(desk: Desk) -> None:
    sent = desk.emit_one()
    session, cursors = desk.owner(), everything()
    session.reading.read_ready(cursors, 10)
    settle(session, ruling(sent, "a", "parked"), ruling(sent, "b", "parked"))
    assert [row[14] for row in session.reading.read_parked(cursors, ["b"], 10)] == ["b"]


def test_nothing_is_read_back_beyond_what_was_read_as_ready(desk: Desk) -> None:
    """Otherwise a parked message could overtake one of its key that no relay has read yet."""
    first, second = desk.emit(2, ordering_key="k")
    session = desk.owner()
    settle(session, ruling(second, "a", "parked"))
    cursors = everything()
    session.reading.read_ready(cursors, 0)
    assert session.reading.read_parked(cursors, ["a"], 10) == []
    assert ids(session.reading.read_ready(cursors, 1).messages) == [first]
    desk.emit(1, ordering_key="k")
    session.reading.read_ready(cursors, 1)
    assert ids(session.reading.read_parked(cursors, ["a"], 10)) == [second]


def test_a_message_that_another_session_parks_below_the_cursor_is_noticed(desk: Desk) -> None:
    sent = desk.emit_one()
    session, cursors = desk.owner(), everything()
    session.reading.read_ready(cursors, 10)
    settle(session, ruling(sent, "a", "dead"))
    session.reading.read_ready(cursors, 10)
    session.reading.read_parked(cursors, ["a"], 10)
    desk.put_back_delivery(sent, "parked")
    assert session.reading.read_ready(cursors, 10).unparked == {"a"}
    assert ids(session.reading.read_parked(cursors, ["a"], 10)) == [sent]
    assert session.reading.read_ready(cursors, 10).unparked == set()


def test_what_a_relay_parks_itself_is_not_news_to_it(desk: Desk) -> None:
    sent = desk.emit_one()
    session, cursors = desk.owner(), everything()
    session.reading.read_ready(cursors, 10)
    settle(session, ruling(sent, "a", "parked"))
    assert session.reading.read_ready(cursors, 10).unparked == set()


# -------------------------------------------------------------------------------------------- unrouted


def test_a_message_that_no_subscription_wants_is_set_aside_and_not_read_again(desk: Desk) -> None:
    ready, scheduled = desk.emit_one(), desk.emit_one(due_at=datetime.now(UTC) - timedelta(seconds=1))
    session = desk.owner()
    session.settling.mark_unrouted([(ready, 0), (scheduled, 0)])
    assert desk.states() == {ready: "unrouted", scheduled: "unrouted"}
    assert not session.reading.read_ready(everything(), 10)
    assert not session.reading.read_due(list(ALL), 10)


def test_a_message_that_an_operator_has_touched_is_not_set_aside(desk: Desk) -> None:
    sent = desk.emit_one()
    session = desk.owner()
    desk.put_back(sent)
    session.settling.mark_unrouted([(sent, 0)])
    assert desk.states() == {sent: "ready"}


# ------------------------------------------------------------------------------------------- operators


def test_what_an_operator_discards_is_noticed_and_finished(desk: Desk) -> None:
    sent = desk.emit_one()
    session, cursors = desk.owner(), everything()
    session.reading.read_ready(cursors, 10)
    settle(session, ruling(sent, "a", "delivered"), ruling(sent, "b", "dead"))
    session.reading.read_ready(cursors, 10)
    desk.put_back_delivery(sent, "discarded", "b")
    assert list(session.reading.read_ready(cursors, 10).discarded) == [(sent, "b")]
    session.settling.discard([(sent, "b")])
    assert (desk.states(), desk.deliveries()) == ({}, {})
    row = desk.history()[sent]
    deliveries = json.loads(row.deliveries) if isinstance(row.deliveries, str) else row.deliveries
    assert {name: each["state"] for name, each in deliveries.items()} == {"a": "delivered", "b": "discarded"}


def test_a_discarded_message_that_others_still_wait_for_stays(desk: Desk) -> None:
    sent = desk.emit_one()
    session = desk.owner()
    settle(session, ruling(sent, "a", "dead"), ruling(sent, "b", "retry"))
    desk.put_back_delivery(sent, "discarded", "a")
    session.settling.discard([(sent, "a")])
    assert desk.deliveries() == {(sent, "a"): "discarded", (sent, "b"): "retry"}
    settle(session, ruling(sent, "b", "delivered", attempts=1), fresh=False)
    assert list(desk.history()) == [sent]


def test_what_is_discarded_between_taking_a_shard_and_looking_for_the_first_time_is_noticed(desk: Desk) -> None:
    first = desk.owner()
    sent = desk.emit_one()
    settle(first, ruling(sent, "a", "dead"))
    first.close()
    session = desk.owner("relay-2")
    desk.put_back_delivery(sent, "discarded")
    assert list(session.reading.read_ready(everything(), 10).discarded) == [(sent, "a")]


def test_discarding_a_dead_letter_lets_its_successors_go(desk: Desk) -> None:
    dead, second = desk.emit(2, ordering_key="k")
    session = desk.owner()
    settle(session, ruling(dead, "a", "dead"))
    settle(session, ruling(second, "a", "blocked"))
    desk.put_back_delivery(dead, "discarded")
    assert [p[2] for p in session.settling.discard([(dead, "a")])] == [desk.position(second)]
    assert desk.delivery(second).state == "parked"
