"""A cancelled message stays cancelled, even in its owner's memory, and is delivered only if it was taken."""

import json
from typing import Any

import pytest
import sqlalchemy as sa
from support.desk import Desk, everything, ruling, settle, sweep, taken

CANCEL = "UPDATE outbox_delivery SET state = 'cancelled', due_at = NULL, txid = {stamp} WHERE message_id = :id"
INSERT = """
INSERT INTO outbox_delivery (message_id, destination, shard, position, ordering_key, state, txid)
SELECT id, :destination, shard, position, ordering_key, 'cancelled', {stamp} FROM outbox_message WHERE id = :id
"""


def cancel(desk: Desk, message_id: str, *destinations: str) -> None:
    """Cancel as an operator does: in place if set aside, else by a delivery for each of its destinations."""
    stamp = "pg_current_xact_id()" if desk.kind == "postgres" else "9999999999999"
    if not destinations:
        desk.database.execute(CANCEL.format(stamp=stamp), id=message_id)
    else:
        desk.database.execute("UPDATE outbox_message SET state = 'held' WHERE id = :id", id=message_id)
    for destination in destinations:
        desk.database.execute(INSERT.format(stamp=stamp), id=message_id, destination=destination)


def outcome(desk: Desk, message_id: str) -> tuple[Any, dict[str, str]]:
    """Return the history's record: the outcome, and destination → state."""
    row = desk.history()[message_id]
    deliveries = json.loads(row.deliveries) if isinstance(row.deliveries, str) else row.deliveries
    return row.outcome, {name: each["state"] for name, each in deliveries.items()}


@pytest.mark.parametrize("verdict", ["retry", "parked", "dead"])
def test_what_was_cancelled_while_it_was_under_way_stays_cancelled_when_it_was_not_taken(
    desk: Desk, verdict: str
) -> None:
    session = desk.owner()
    plain, again = desk.emit(2)
    settle(session, ruling(again, "a", "parked"))
    cancel(desk, plain, "a")
    cancel(desk, again)
    settle(session, ruling(plain, "a", verdict))
    settle(session, ruling(again, "a", verdict), fresh=False)
    session.settling.discard([(plain, "a"), (again, "a")])
    assert (desk.states(), desk.deliveries()) == ({}, {})
    assert outcome(desk, plain) == outcome(desk, again) == ("cancelled", {"a": "cancelled"})
    assert desk.history()[plain].attempts == 0


def test_what_was_taken_while_it_was_being_cancelled_is_delivered(desk: Desk) -> None:
    session = desk.owner()
    plain, again, partly = desk.emit(3)
    settle(session, ruling(again, "a", "parked"))
    cancel(desk, plain, "a")
    cancel(desk, again)
    cancel(desk, partly, "a", "b")
    assert session.settling.settle_plain(taken(plain))() == 0
    settle(session, ruling(plain, "a", "delivered"))
    settle(session, ruling(again, "a", "delivered"), fresh=False)
    settle(session, ruling(partly, "a", "delivered"), ruling(partly, "b", "parked"))
    session.settling.discard([(partly, "a"), (partly, "b")])
    assert (desk.states(), desk.deliveries()) == ({}, {})
    assert outcome(desk, plain) == outcome(desk, again) == (None, {"a": "delivered"})
    assert outcome(desk, partly) == (None, {"a": "delivered", "b": "cancelled"})


@pytest.mark.parametrize("way", ["found", "found on taking the shard"])
def test_what_waits_behind_a_cancelled_message_of_its_key_goes_on(desk: Desk, way: str) -> None:
    session = desk.owner()
    first, second = desk.emit(2, ordering_key="k")
    settle(session, ruling(first, "a", "parked"), ruling(second, "a", "blocked"))
    if way == "found on taking the shard":
        session.close()
        cancel(desk, first)
        sweep(desk.owner("relay-2"))
    else:
        cursors = everything()
        session.reading.read_ready(cursors, 10)
        cancel(desk, first)
        assert list(session.reading.read_ready(cursors, 10).discarded) == [(first, "a")]
        assert [p[2] for p in session.settling.discard([(first, "a")])] == [desk.position(second)]
    assert desk.deliveries() == {(second, "a"): "parked"}
    assert outcome(desk, first) == ("cancelled", {"a": "cancelled"})


def test_a_cancelled_message_holds_no_newcomer_of_its_key_up(desk: Desk) -> None:
    session = desk.owner()
    first = desk.emit_one(ordering_key="k")
    settle(session, ruling(first, "a", "parked"))
    assert session.reading.held_keys(["k"], ["a"]) == {("a", "k"): desk.position(first)}
    cancel(desk, first)
    assert session.reading.held_keys(["k"], ["a"]) == {}


def test_the_history_tells_the_registered_destinations_for_which_a_message_was_settled(desk: Desk) -> None:
    session = desk.owner(generation=7)
    plain, late = desk.emit(2)
    session.settling.settle_plain(taken(plain))()
    settle(session, ruling(late, "a", "retry"))
    settle(session, ruling(late, "a", "delivered", attempts=1), fresh=False)
    assert {row.registered for row in desk.history().values()} == {7}


def test_a_cancelled_delivery_between_a_key_and_its_release_does_not_hold_it(desk: Desk) -> None:
    session = desk.owner()
    first, second, third = desk.emit(3, ordering_key="k")
    settle(session, ruling(first, "a", "parked"), ruling(second, "a", "blocked"), ruling(third, "a", "blocked"))
    settle(session, ruling(second, "b", "parked"))
    cancel(desk, second)
    settle(session, ruling(first, "a", "delivered"), fresh=False)
    assert desk.deliveries(third) == {(third, "a"): "parked"}


def test_a_release_leaves_alone_what_an_operator_is_about_to_cancel(pg: Desk) -> None:
    session = pg.owner()
    first, second = pg.emit(2, ordering_key="k")
    settle(session, ruling(first, "a", "parked"), ruling(second, "a", "blocked"))
    with pg.database.engine.connect() as operator:
        operator.execute(sa.text(CANCEL.format(stamp="pg_current_xact_id()")), {"id": second})
        settle(session, ruling(first, "a", "delivered"), fresh=False)
        operator.commit()
    assert pg.deliveries() == {(second, "a"): "cancelled"}
