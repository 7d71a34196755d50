"""A sweep looks through the deliveries, slice by slice, and finds what no other statement would move."""

import pytest
from support.desk import ALL, Desk, everything, ruling, settle, sweep
from support.waiting import eventually

from relay.databases.postgresql.sql import sweeping as postgres_sql
from relay.databases.sqlite.sql import sweeping as sqlite_sql
from relay.databases.store.contract import RELEASE_COUNT, SETTLED_S


def grow_older(desk: Desk, message_id: str, by_s: float = SETTLED_S + 1) -> None:
    """Make deliveries older, as if they had been set aside that long ago."""
    before = "clock_timestamp() - :s * interval '1 second'"
    if desk.kind == "sqlite":
        before = "strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || :s || ' seconds')"
    desk.database.execute(
        f"UPDATE outbox_delivery SET changed_at = {before} WHERE message_id = :id", s=by_s, id=message_id
    )


def test_what_waits_behind_the_memory_of_a_former_owner_is_released(desk: Desk) -> None:
    """Its predecessor may be delivered by now, or be ready again."""
    _head, second = desk.emit(2, ordering_key="k")
    session = desk.owner()
    settle(session, ruling(second, "a", "blocked", behind_memory=True))
    session.close()
    successor = desk.owner("relay-2")
    assert desk.delivery(second).state == "blocked"
    found = successor.settling.sweep(0, list(ALL), list(ALL))
    assert desk.delivery(second).state == "parked"
    assert [(p[0], p[2]) for p in found.parked] == [("a", desk.position(second))]


def test_the_first_of_a_key_is_released_and_its_delivery_releases_the_others(desk: Desk) -> None:
    orphans = desk.emit(RELEASE_COUNT + 2, ordering_key="k")
    settle(desk.owner(), *(ruling(each, "a", "blocked", behind_memory=True) for each in orphans))
    desk.sessions[0].close()
    session = desk.owner("relay-2")
    sweep(session)
    assert [desk.delivery(each).state for each in orphans[:2]] == ["parked", "blocked"]
    settle(session, ruling(orphans[0], "a", "delivered"), fresh=False)
    assert [desk.delivery(each).state for each in (orphans[1], orphans[-1])] == ["parked", "blocked"]


def test_each_destination_and_each_key_is_released_by_itself(desk: Desk) -> None:
    (held, behind), (free, *_), stranger = (
        desk.emit(2, ordering_key="k"), desk.emit(2, ordering_key="l"), desk.emit_one(ordering_key="m")
    )  # fmt: skip
    session = desk.owner()
    settle(session, ruling(held, "a", "retry", delay_s=60), ruling(held, "b", "delivered"))
    settle(session, *(ruling(behind, name, "blocked", behind_memory=True) for name in "ab"))
    settle(session, ruling(free, "a", "blocked", behind_memory=True), ruling(stranger, "a", "parked"))
    sweep(session)
    assert (desk.delivery(behind, "a").state, desk.delivery(behind, "b").state) == ("blocked", "parked")
    assert desk.delivery(free).state == "parked"


@pytest.mark.parametrize("skipping", [[], ["a"]], ids=["blocking", "skipping"])
def test_what_waits_for_something_stays_blocked(desk: Desk, skipping: list[str]) -> None:
    dead, behind_dead = desk.emit(2, ordering_key="k")
    failing, behind_failing = desk.emit(2, ordering_key="l")
    parked, behind_parked = desk.emit(2, ordering_key="m")
    session = desk.owner(skipping=skipping)
    settle(session, ruling(dead, "a", "dead"), ruling(failing, "a", "retry", delay_s=60), ruling(parked, "a", "parked"))
    settle(session, *(ruling(each, "a", "blocked") for each in (behind_dead, behind_failing, behind_parked)))
    assert sweep(session)
    assert desk.delivery(behind_dead).state == ("parked" if skipping else "blocked")
    assert {desk.delivery(each).state for each in (behind_failing, behind_parked)} == {"blocked"}


def test_what_was_blocked_a_moment_ago_is_released_only_where_its_owner_has_changed(desk: Desk) -> None:
    """Elsewhere its predecessor is likely to be in its owner's memory, and releases it."""
    _head, second = desk.emit(2, ordering_key="k")
    session = desk.owner()
    settle(session, ruling(second, "a", "blocked", behind_memory=True))
    shard = desk.delivery(second).shard
    sweep(session, fresh=[each for each in ALL if each != shard])
    assert desk.delivery(second).state == "blocked"
    grow_older(desk, second)
    sweep(session, fresh=[])
    assert desk.delivery(second).state == "parked"


def test_the_shards_of_others_are_left_alone(desk: Desk) -> None:
    _head, second = desk.emit(2, ordering_key="k")
    session = desk.owner()
    settle(session, ruling(second, "a", "blocked", behind_memory=True))
    shard = desk.delivery(second).shard
    sweep(session, [each for each in ALL if each != shard])
    assert desk.delivery(second).state == "blocked"


def test_another_session_that_answers_for_ours_releases_nothing(pg: Desk) -> None:
    _head, second = pg.emit(2, ordering_key="k")
    session = pg.owner()
    settle(session, ruling(second, "a", "blocked", behind_memory=True))
    session.connection.bare.execute("SELECT set_config('outbox.owner', 'another session', false)")
    assert session.settling.sweep(0, list(ALL), list(ALL)).parked == []
    assert pg.delivery(second).state == "blocked"


def test_what_a_sweep_releases_is_no_news_from_operators(desk: Desk) -> None:
    _head, second = desk.emit(2, ordering_key="k")
    session, cursors = desk.owner(), everything()
    settle(session, ruling(second, "a", "blocked", behind_memory=True))
    session.reading.read_ready(cursors, 10)
    sweep(session)
    assert session.reading.read_ready(cursors, 10).unparked == set()


def test_slices_of_any_size_make_up_the_whole_table(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_sql, "PAGES", 1)
    monkeypatch.setattr(sqlite_sql, "SLICE_END", sqlite_sql.SLICE_END.replace(str(sqlite_sql.ROWS), "7"))
    monkeypatch.setattr(sqlite_sql, "ROWS", 7)
    session = desk.owner()
    orphans = [desk.emit_one(ordering_key=f"k{n}") for n in range(300)]
    settle(session, *(ruling(each, "a", "blocked", behind_memory=True) for each in orphans))
    slices, at = 0, 0
    while at is not None:
        at, slices = session.settling.sweep(at, list(ALL), list(ALL)).next_at, slices + 1
    assert slices > 3
    assert set(desk.deliveries().values()) == {"parked"}


def test_whether_anything_holds_its_key_is_known_after_a_lap(desk: Desk) -> None:
    keyed, plain = desk.emit_one(ordering_key="k"), desk.emit_one()
    session = desk.owner()
    assert not sweep(session)
    settle(session, ruling(plain, "a", "dead"), ruling(plain, "b", "delivered"))
    settle(session, ruling(keyed, "a", "delivered"), ruling(keyed, "b", "retry"))
    assert sweep(session)
    settle(session, ruling(keyed, "b", "delivered", attempts=1), fresh=False)
    assert not sweep(session)


def test_a_discard_without_an_owner_of_the_shard_is_completed_later(desk: Desk) -> None:
    first = desk.owner()
    dead, second = desk.emit(2, ordering_key="k")
    settle(first, ruling(dead, "a", "dead"), ruling(second, "a", "blocked"))
    first.close()
    desk.put_back_delivery(dead, "discarded")
    sweep(desk.owner("relay-2"))
    assert desk.deliveries() == {(second, "a"): "parked"}
    assert list(desk.history()) == [dead]


def test_what_was_discarded_for_one_is_not_finished_while_another_waits_for_it(desk: Desk) -> None:
    sent = desk.emit_one()
    session = desk.owner()
    settle(session, ruling(sent, "a", "dead"), ruling(sent, "b", "retry", delay_s=60))
    desk.put_back_delivery(sent, "discarded", "a")
    assert session.settling.sweep(0, list(ALL), list(ALL)).discarded == []
    assert desk.states() == {sent: "held"}


def test_a_sweep_does_not_wait_for_a_session_that_rules_on_the_same_rows(pg: Desk) -> None:
    _head, second = pg.emit(2, ordering_key="k")
    session = pg.owner()
    settle(session, ruling(second, "a", "blocked", behind_memory=True))
    with pg.database.engine.connect() as other:
        other.exec_driver_sql("SELECT FROM outbox_delivery FOR UPDATE")
        assert session.settling.sweep(0, list(ALL), list(ALL)).parked == []
    eventually(lambda: session.settling.sweep(0, list(ALL), list(ALL)).parked)
