"""Which entry is sent next, among what was not tried yet and what failed before."""

from __future__ import annotations

import pytest
from support.lanes import make_entry, make_lane

from relay.decide.verdict import PARKED
from relay.delivery.startable import OFTEN, SELDOM, Startable
from relay.seam.entry import Entry


def startable(*, fresh: int, again: int) -> Startable:
    """Return the given number of entries of each kind."""
    lane, found = make_lane(), Startable()
    found.fresh.extend(make_entry(lane, f"fresh {n}", n) for n in range(fresh))
    found.again.extend(make_entry(lane, f"again {n}", n) for n in range(again))
    return found


def next_turn(found: Startable) -> tuple[int, Entry]:
    """Return how many attempts pass until what failed before has its turn, and which entry has it."""
    for count in range(1, 1000):
        entry = found.take()
        assert entry is not None
        if entry in found.turns:
            return count, entry
    raise AssertionError("what failed before never has a turn")


def test_what_fails_again_is_tried_ever_more_seldom_and_never_less_than_that() -> None:
    found, counts = startable(fresh=1000, again=20), []
    for _ in range(8):
        count, entry = next_turn(found)
        counts.append(count)
        found.end_turn(entry, taken=False)
    assert counts == [OFTEN, 4, 8, 16, SELDOM, SELDOM, SELDOM, SELDOM]


def test_what_is_taken_when_it_is_tried_again_makes_the_next_turn_come_sooner() -> None:
    found, counts = startable(fresh=1000, again=20), []
    for taken in (False, False, False, True, True, True, True):
        count, entry = next_turn(found)
        counts.append(count)
        found.end_turn(entry, taken=taken)
    assert counts == [2, 4, 8, 16, 8, 4, 2]


def test_an_attempt_that_tells_nothing_leaves_the_turns_as_they_are() -> None:
    found = startable(fresh=1000, again=20)
    _, entry = next_turn(found)
    found.end_turn(entry)
    assert next_turn(found)[0] == OFTEN


def test_what_failed_before_is_sent_when_there_is_nothing_else() -> None:
    found = startable(fresh=0, again=3)
    assert [entry.id for entry in (found.take(), found.take(1.0), found.take()) if entry] == [
        "again 0",
        "again 1",
        "again 2",
    ]
    assert found.take() is None


def test_what_was_not_tried_is_taken_from_the_place_that_is_asked_for() -> None:
    found = startable(fresh=9, again=3)
    assert [entry.id for entry in (found.take(1.0), found.take(0.5), found.take(0.0)) if entry] == [
        "fresh 8",
        "fresh 4",
        "fresh 0",
    ]


def test_another_type_than_those_that_failed_is_taken_from_behind_the_place() -> None:
    found = startable(fresh=9, again=0)
    found.fresh[6] = make_entry(make_lane(), "fresh 6", 6, type_="other")
    taken = [found.take(0.25, {"t"}), found.take(0.25, {"t"})]
    assert [entry.id for entry in taken if entry] == ["fresh 6", "fresh 2"]


@pytest.mark.parametrize(
    ("count", "kept"), [(1, [8]), (3, [0, 4, 8]), (4, [0, 3, 6, 8]), (9, range(9)), (20, range(9))]
)
def test_a_sample_holds_untried_entries_of_any_age_and_all_that_failed(count: int, kept: list[int]) -> None:
    found = startable(fresh=9, again=3)
    ids = {f"fresh {n}" for n in kept} | {f"again {n}" for n in range(3)}
    assert {entry.id for entry in found.sample(count)} == ids


def test_a_batch_holds_nothing_that_failed_before_beside_what_was_not_tried() -> None:
    found = startable(fresh=5, again=5)
    batches = []
    for _ in range(2):
        first, others = found.take(), iter(lambda: found.take_if(lambda _: True), None)
        assert first is not None
        batches.append([first.id[:5], *(entry.id[:5] for _, entry in zip(range(2), others, strict=False) if entry)])
    assert batches == [["fresh"] * 3, ["again"] * 3]


def test_a_retry_that_falls_due_takes_no_room_of_what_was_not_tried_and_is_put_off_where_it_has_none() -> None:
    decided: list[Entry] = []
    lane = make_lane(limit=16, on_complete=decided.append)
    for n in range(20):
        lane.accept_back(charged(lane, n), None)
    assert (lane.wants, lane.queue.set_back.count) == (16, 8)
    verdicts = [entry.verdict_of("api") for entry in decided]
    assert [(v.state, v.charged, v.delay_floor_s > 0) for v in verdicts] == [("retry", 0, True)] * 12
    lane.health.operator_pause = "lunch"
    lane.queue.accept_back(charged(lane, 99), before=None, has_room=False)
    assert decided[-1].verdict_of("api") is PARKED


def charged(lane: object, n: int) -> Entry:
    """A delivery that was charged twice."""
    entry = make_entry(lane, f"m{n}", n)
    entry.attempts = 2
    return entry
