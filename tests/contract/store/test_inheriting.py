"""What an owner of a shard inherits from the previous one."""

import pytest
import sqlalchemy as sa
from support.desk import Desk
from support.waiting import eventually

from outbox.tables import tables
from relay.databases.store.contract import Lost
from relay.decide.failures.crashes import Accused, Record


def record_of(desk: Desk, shard: int) -> Record:
    found = desk.database.scalar("SELECT CAST(started AS text) FROM outbox_shard WHERE shard = :shard", shard=shard)
    return Record.parse(found)


def take(desk: Desk, name: str = "relay-2") -> dict[int, object]:
    session = desk.open(name)
    found = eventually(lambda: session.ownership.take([1, 2]), what="the shards are free")
    return {inherited.shard: inherited for inherited in found}


def test_no_suspicion_is_inherited_from_an_owner_that_handed_back(desk: Desk) -> None:
    session = desk.owner("relay-1")
    session.ownership.give([1, 2])
    session.close()
    for inherited in take(desk).values():
        assert (inherited.is_dirty, inherited.was_mine, inherited.record) == (False, False, None)


def test_what_an_owner_that_died_had_noted_is_inherited(desk: Desk) -> None:
    sent, gone = desk.emit_one(), "0197c0de-0000-7000-8000-000000000000"
    session = desk.owner("relay-1")
    session.ownership.note({1: Record(started={(sent, "a"), (gone, "a")}).dump(), 2: None})
    session.close()
    found = take(desk)
    assert [(found[n].is_dirty, found[n].owner) for n in (1, 2)] == [(True, "relay-1")] * 2
    assert Record.parse(found[1].record).started == {(sent, "a"), (gone, "a")}
    assert found[1].present == {sent}
    assert found[2].record is None
    assert record_of(desk, 1).started == {(sent, "a"), (gone, "a")}, "taking it loses nothing"


def test_what_a_process_left_itself_is_no_sign_of_a_death(desk: Desk) -> None:
    desk.owner("relay-1").close()
    found = take(desk, "relay-1")
    assert {(i.is_dirty, i.was_mine) for i in found.values()} == {(False, True)}


def test_what_is_accused_stays_so_when_a_shard_is_handed_back(desk: Desk) -> None:
    sent = desk.emit_one()
    session = desk.owner("relay-1")
    accused = {(sent, "a"): Accused(2)}
    session.ownership.note({1: Record(accused=accused).dump()})
    session.ownership.give([1, 2])
    session.close()
    found = take(desk)[1]
    assert (found.is_dirty, Record.parse(found.record).accused) == (False, accused)


def test_a_shard_that_another_relay_owns_now_is_not_written_to(desk: Desk) -> None:
    session = desk.owner("relay-1")
    session.ownership.give([1])
    session.ownership.note({1: Record(started={("m", "a")}).dump(), 2: Record(started={("m", "b")}).dump()})
    assert record_of(desk, 1) == Record()
    assert record_of(desk, 2).started == {("m", "b")}


def test_another_session_that_answers_for_ours_notes_nothing(pg: Desk) -> None:
    session = pg.owner("relay-1")
    session.connection.bare.execute("SELECT set_config('outbox.owner', 'another session', false)")
    with pytest.raises(Lost):
        session.ownership.note({1: Record(started={("m", "a")}).dump()})
    assert record_of(pg, 1) == Record()


def test_the_time_of_taking_is_the_databases(desk: Desk) -> None:
    desk.emit_one()
    desk.owner("relay-1").close()
    at = take(desk)[1].at
    with desk.database.engine.connect() as connection:
        (created_at,) = connection.scalars(sa.select(tables().message.c.created_at))
    assert at >= created_at


def test_a_shard_whose_row_was_deleted_is_taken_all_the_same(desk: Desk) -> None:
    """On PostgreSQL a new session writes the row again."""
    desk.database.execute("DELETE FROM outbox_shard WHERE shard = 2")
    found = take(desk)
    assert sorted(found) == [1, 2]
    assert (found[2].is_dirty, found[2].owner, found[2].record) == (False, None, None)
