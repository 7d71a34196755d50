"""Only sessions of the current generation route messages: older ones find none and set none aside."""

import pytest
from support.desk import Desk, everything, ids, taken


def test_a_session_of_an_older_generation_finds_no_message_any_more(desk: Desk) -> None:
    desk.register("a", generation=1)
    old = desk.owner(generation=1)
    first = desk.emit_one()
    assert ids(old.reading.read_ready(cursors := everything(), 10).messages) == [first]
    desk.register("b", generation=2)
    second, _due = desk.emit_one(), desk.emit_one(delay=0)
    desk.put_back(first)
    assert old.reading.read_ready(cursors, 10).messages == []
    assert old.reading.read_due(list(cursors.ready), 10).messages == []
    old.close()
    new = desk.owner("relay-2", generation=2)
    assert {first, second} <= set(ids(new.reading.read_ready(everything(), 10).messages))


def test_a_session_of_an_older_generation_does_not_take_a_shard_for_read(desk: Desk) -> None:
    """Parked messages there would overtake ready ones that it does not read."""
    desk.register("a", generation=1)
    old = desk.owner(generation=1)
    desk.emit(3)
    desk.register("b", generation=2)
    cursors = everything()
    for _ in range(3):
        assert old.reading.read_ready(cursors, 10).messages == []
    assert not cursors.exhausted


def test_what_was_read_under_an_older_generation_is_still_settled_by_it(desk: Desk) -> None:
    desk.register("a", generation=1)
    old = desk.owner(generation=1)
    message_id = desk.emit_one()
    old.reading.read_ready(everything(), 10)
    desk.register("b", generation=2)
    assert old.settling.settle_plain(taken(message_id))() == 1


def test_a_session_of_an_older_generation_sets_nothing_aside_as_unrouted(desk: Desk) -> None:
    """A new subscription may want it, and no relay would read it again."""
    desk.register("a", generation=1)
    old = desk.owner(generation=1)
    unwanted, wanted_by_now = desk.emit(2)
    old.settling.mark_unrouted([(unwanted, 0)])
    desk.register("b", generation=2)
    old.settling.mark_unrouted([(wanted_by_now, 0)])
    assert desk.states() == {unwanted: "unrouted", wanted_by_now: "ready"}


def test_a_registration_waits_for_sessions_that_set_messages_aside(pg: Desk) -> None:
    """Otherwise it would look for unrouted messages before they are marked."""
    from psycopg import connect
    from psycopg.errors import LockNotAvailable

    pg.register("a", generation=1)
    old = pg.owner(generation=1)
    message_id = pg.emit_one()
    locked: list[bool] = []
    run = old.connection.run

    def watched(statement: str, **parameters: object) -> object:
        if "SET state = 'unrouted'" in statement:
            with connect(pg.database.url) as other:
                other.execute("SET lock_timeout = '100ms'")
                with pytest.raises(LockNotAvailable):
                    other.execute("LOCK TABLE outbox_destination IN EXCLUSIVE MODE")
            locked.append(True)
        return run(statement, **parameters)

    old.connection.run = watched
    old.settling.mark_unrouted([(message_id, 0)])
    assert locked == [True]
