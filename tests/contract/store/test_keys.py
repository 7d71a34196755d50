"""A key is held from its first message that is not done, and let go when that is."""

import pytest
from support.desk import ALL, Desk, ruling, settle, taken

from relay.store.contract import RELEASE_COUNT
from relay.store.postgres import ownership_sql


def test_a_key_is_held_from_its_first_message_that_is_not_done(desk: Desk) -> None:
    done, dead, blocked, other = *desk.emit(3, ordering_key="k"), desk.emit_one(ordering_key="other")
    session = desk.owner()
    settle(session, ruling(done, "a", "delivered"), ruling(done, "b", "retry"))
    settle(session, ruling(dead, "a", "dead"), ruling(dead, "b", "blocked"))
    settle(session, ruling(blocked, "a", "blocked"), ruling(blocked, "b", "blocked"))
    settle(session, ruling(other, "a", "parked"))
    assert session.held_keys(["k", "free"], ["a", "b"], []) == {
        ("a", "k"): desk.position(dead),
        ("b", "k"): desk.position(done),
    }


def test_a_dead_letter_holds_its_key_where_it_blocks_and_not_where_it_is_skipped(desk: Desk) -> None:
    dead = desk.emit_one(ordering_key="k")
    session = desk.owner()
    settle(session, ruling(dead, "a", "dead"), ruling(dead, "b", "dead"))
    assert session.held_keys(["k"], ["a", "b"], ["b"]) == {("a", "k"): desk.position(dead)}


@pytest.mark.parametrize("verdict", ["delivered", "retry", "dead", "skipped"])
def test_a_key_lets_its_successors_go_when_its_head_is_done(desk: Desk, verdict: str) -> None:
    head, *others = desk.emit(4, ordering_key="k")
    stranger = desk.emit_one(ordering_key="other")
    session = desk.owner()
    settle(session, ruling(head, "a", "retry"), ruling(stranger, "a", "retry"))
    settle(session, *(ruling(i, "a", "blocked") for i in others))
    state, skipping = ("dead", ["a"]) if verdict == "skipped" else (verdict, [])
    released = settle(session, ruling(head, "a", state, attempts=2), fresh=False, skipping=skipping)
    free = verdict in ("delivered", "skipped")
    assert {desk.delivery(i).state for i in others} == {"parked" if free else "blocked"}
    assert sorted(p[2] for p in released) == (sorted(map(desk.position, others)) if free else [])


def test_a_key_is_free_for_one_destination_and_not_for_the_other(desk: Desk) -> None:
    head, second = desk.emit(2, ordering_key="k")
    session = desk.owner()
    settle(session, ruling(head, "a", "retry"), ruling(head, "b", "retry"))
    settle(session, ruling(second, "a", "blocked"), ruling(second, "b", "blocked"))
    settle(session, ruling(head, "a", "delivered", attempts=1), fresh=False)
    assert (desk.delivery(second, "a").state, desk.delivery(second, "b").state) == ("parked", "blocked")


def test_what_was_blocked_behind_a_head_that_is_done_already_is_let_go_at_once(desk: Desk) -> None:
    head, second = desk.emit(2, ordering_key="k")
    session = desk.owner()
    session.settle_plain(taken(head))
    assert list(settle(session, ruling(second, "a", "blocked")))
    assert desk.delivery(second).state == "parked"


def test_what_is_blocked_behind_a_message_in_memory_waits_for_that_one(desk: Desk) -> None:
    head, second = desk.emit(2, ordering_key="k")
    session = desk.owner()
    settle(session, ruling(second, "a", "blocked", behind_memory=True))
    assert desk.delivery(second).state == "blocked"
    settle(session, ruling(head, "a", "delivered"))
    assert desk.delivery(second).state == "parked"


def test_a_long_key_is_let_go_in_parts_and_each_part_lets_the_next_one_go(desk: Desk) -> None:
    head, *others = desk.emit(RELEASE_COUNT + 3, ordering_key="k")
    session = desk.owner()
    settle(session, ruling(head, "a", "retry"))
    settle(session, *(ruling(i, "a", "blocked") for i in others))
    settle(session, ruling(head, "a", "delivered", attempts=1), fresh=False)
    assert [desk.delivery(i).state for i in others[-3:]] == ["parked", "blocked", "blocked"]
    settle(session, *(ruling(i, "a", "delivered") for i in others[: RELEASE_COUNT - 1]), fresh=False)
    assert [desk.delivery(i).state for i in others[-3:]] == ["parked", "blocked", "blocked"]
    settle(session, ruling(others[RELEASE_COUNT - 1], "a", "delivered"), fresh=False)
    assert [desk.delivery(i).state for i in others[-2:]] == ["parked", "parked"]


def test_who_takes_a_shard_lets_go_of_what_waits_there_for_nobody(desk: Desk) -> None:
    """A former owner had the predecessor in memory only; it may be delivered by now, or in the queue again."""
    _head, second = desk.emit(2, ordering_key="k")
    session = desk.owner()
    settle(session, ruling(second, "a", "blocked", behind_memory=True))
    session.close()
    desk.owner("relay-2")
    assert desk.delivery(second).state == "parked"


def test_what_waits_behind_memory_is_not_let_go_when_its_owner_takes_more(desk: Desk) -> None:
    """In the first seconds of a session a relay asks with every beat for what it held before."""
    _, successor = desk.emit(2, ordering_key="k")
    shard = desk.database.scalar("SELECT shard FROM outbox_message LIMIT 1")
    others = [each for each in ALL if each != shard]
    session = desk.open()
    session.take([shard], [])
    settle(session, ruling(successor, "a", "blocked", behind_memory=True))
    for shards in ([shard], others, ALL):
        session.take(shards, [])
        assert desk.delivery(successor).state == "blocked"


@pytest.mark.parametrize("skipping", [[], ["a"]], ids=["blocking", "skipping"])
def test_who_takes_a_shard_leaves_blocked_what_waits_for_something(desk: Desk, skipping: list[str]) -> None:
    dead, behind_dead = desk.emit(2, ordering_key="k")
    failing, behind_failing = desk.emit(2, ordering_key="l")
    session = desk.owner()
    settle(session, ruling(dead, "a", "dead"), ruling(failing, "a", "retry", delay_s=60))
    settle(session, ruling(behind_dead, "a", "blocked"), ruling(behind_failing, "a", "blocked"))
    session.close()
    desk.owner("relay-2", skipping=skipping)
    assert desk.delivery(behind_dead).state == ("parked" if skipping else "blocked")
    assert desk.delivery(behind_failing).state == "blocked"


def test_who_takes_a_shard_where_millions_are_blocked_looks_at_them_a_few_at_a_time(
    pg: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once they are more than one statement has time for, and nobody could take the shard again."""
    few = ownership_sql.RELEASE_ORPHANS.replace(str(ownership_sql.ORPHAN_COUNT), "3")
    monkeypatch.setattr(ownership_sql, "RELEASE_ORPHANS", few)
    held, *others = pg.emit(20, ordering_key="k")
    session = pg.owner()
    settle(session, ruling(held, "a", "retry", delay_s=60), *(ruling(each, "a", "blocked") for each in others))
    settle(session, *(ruling(each, "b", "blocked", behind_memory=True) for each in others[9:]))
    session.close()
    pg.owner("relay-2")
    assert [pg.delivery(each).state for each in others] == ["blocked"] * 19
    assert [pg.delivery(each, "b").state for each in others[9:]] == ["parked", *["blocked"] * 9]
