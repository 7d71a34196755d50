"""A key is held from its first message that is not done, and released when that message is done."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from support.desk import Desk, ruling, settle, taken
from support.waiting import eventually

from relay.databases.store.contract import RELEASE_COUNT


def test_a_key_is_held_from_its_first_message_that_is_not_done(desk: Desk) -> None:
    done, dead, blocked, other = *desk.emit(3, ordering_key="k"), desk.emit_one(ordering_key="other")
    session = desk.owner()
    settle(session, ruling(done, "a", "delivered"), ruling(done, "b", "retry"))
    settle(session, ruling(dead, "a", "dead"), ruling(dead, "b", "blocked"))
    settle(session, ruling(blocked, "a", "blocked"), ruling(blocked, "b", "blocked"))
    settle(session, ruling(other, "a", "parked"))
    assert session.reading.held_keys(["k", "free"], ["a", "b"]) == {
        ("a", "k"): desk.position(dead),
        ("b", "k"): desk.position(done),
    }


def test_a_dead_letter_holds_its_key_where_it_blocks_and_not_where_it_is_skipped(desk: Desk) -> None:
    dead = desk.emit_one(ordering_key="k")
    session = desk.owner(skipping=["b"])
    settle(session, ruling(dead, "a", "dead"), ruling(dead, "b", "dead"))
    assert session.reading.held_keys(["k"], ["a", "b"]) == {("a", "k"): desk.position(dead)}


@pytest.mark.parametrize("verdict", ["delivered", "retry", "dead", "skipped"])
def test_a_key_lets_its_successors_go_when_its_head_is_done(desk: Desk, verdict: str) -> None:
    head, *others = desk.emit(4, ordering_key="k")
    stranger = desk.emit_one(ordering_key="other")
    state, skipping = ("dead", ["a"]) if verdict == "skipped" else (verdict, [])
    session = desk.owner(skipping=skipping)
    settle(session, ruling(head, "a", "retry"), ruling(stranger, "a", "retry"))
    settle(session, *(ruling(i, "a", "blocked") for i in others))
    released = settle(session, ruling(head, "a", state, attempts=2), fresh=False)
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
    session.settling.settle_plain(taken(head))()
    assert list(settle(session, ruling(second, "a", "blocked")))
    assert desk.delivery(second).state == "parked"


def test_what_is_blocked_behind_a_message_in_memory_waits_for_that_one(desk: Desk) -> None:
    head, second = desk.emit(2, ordering_key="k")
    session = desk.owner()
    settle(session, ruling(second, "a", "blocked", behind_memory=True))
    assert desk.delivery(second).state == "blocked"
    settle(session, ruling(head, "a", "delivered"))
    assert desk.delivery(second).state == "parked"


def test_a_long_key_is_released_in_parts_and_each_part_releases_the_next_one(desk: Desk) -> None:
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


# ------------------------------------------------------------------------------- two sessions, one key


class Held:
    """A session that stops before it releases keys, or between the release and the commit.

    Args:
        session: The one to stop.
        when: ``"before"`` or ``"after"``.
    """

    def __init__(self, session: Any, when: str) -> None:
        self._release, self._when = session.settling._release, when
        self.has_come, self.may_go = Event(), Event()
        session.settling._release = self._held

    def _held(self, *arguments: Any) -> Any:
        released = self._release(*arguments) if self._when == "after" else None
        self.has_come.set()
        assert self.may_go.wait(30)
        return released if self._when == "after" else self._release(*arguments)


def count_tries(session: Any, tries: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Note the session's relay at each transaction that it begins."""
    plain = session.settling._settle

    def noted(*arguments: Any, **options: Any) -> Any:
        tries.append(session.ownership._relay_id)
        return plain(*arguments, **options)

    monkeypatch.setattr(session.settling, "_settle", noted)


def overlap(desk: Desk, held: Held, first: Callable[[], Any], second: Callable[[], Any]) -> None:
    """Run both: while the first one is held, the second goes as far as it can."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

    def has_come_as_far_as_it_can(running: Future[Any]) -> bool:
        return running.done() or bool(desk.database.scalar(waits))

    with ThreadPoolExecutor() as pool:
        done = [pool.submit(first)]
        assert held.has_come.wait(30)
        done.append(pool.submit(second))
        eventually(lambda: has_come_as_far_as_it_can(done[1]))
        held.may_go.set()
        for each in done:
            each.result(30)


@pytest.mark.parametrize("is_owner_first", [True, False], ids=["the owner first", "the former owner first"])
def test_of_two_that_rule_on_one_key_at_once_the_second_sees_what_the_first_wrote(
    pg: Desk, is_owner_first: bool
) -> None:
    """Otherwise the next message of the key would stay blocked: neither of the two would release it."""
    head, following = pg.emit(2, ordering_key="k")
    owner, former = pg.owner("owner"), pg.open("former")
    settle(owner, ruling(head, "a", "retry"))

    def set_aside() -> None:
        settle(owner, ruling(following, "a", "blocked"))

    def say_what_was_taken() -> None:
        settle(former, ruling(head, "a", "delivered"))

    if is_owner_first:
        overlap(pg, Held(owner, "after"), set_aside, say_what_was_taken)
    else:
        overlap(pg, Held(former, "after"), say_what_was_taken, set_aside)
    assert pg.deliveries() == {(following, "a"): "parked"}
    assert list(pg.history()) == [head]


def test_two_that_rule_on_one_key_at_once_do_not_wait_for_each_other(pg: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is about to release the message that the other is settling: a deadlock would have to be retried."""
    head, second, third = pg.emit(3, ordering_key="k")
    owner, former = pg.owner("owner"), pg.open("former")
    settle(owner, ruling(head, "a", "retry"), *(ruling(each, "a", "blocked") for each in (second, third)))
    tries: list[str] = []
    for session in (owner, former):
        count_tries(session, tries, monkeypatch)
    overlap(
        pg,
        Held(owner, "before"),
        lambda: settle(owner, ruling(head, "a", "delivered", attempts=1), fresh=False),
        lambda: settle(former, ruling(second, "a", "delivered"), fresh=False),
    )
    assert tries == ["owner", "former"]
    assert pg.deliveries() == {(third, "a"): "parked"}
