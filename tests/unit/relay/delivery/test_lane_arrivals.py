"""What a lane takes of a page at once, and what it sets aside."""

from support.lanes import make_entry, make_lane

from relay.decide.verdict import BEHIND, BLOCKED, PARKED


def test_a_page_that_fits_is_taken_in_its_order() -> None:
    lane = make_lane(has_siblings=True, limit=5)
    entries = [make_entry(lane, f"m{n}", n) for n in range(5)]
    lane.accept_all(entries, {})
    assert (list(lane.queue.startable.fresh), lane.queue.size, lane.wants) == (entries, 5, 0)


def test_what_does_not_fit_beside_other_destinations_is_parked() -> None:
    lane = make_lane(has_siblings=True, limit=3)
    entries = [make_entry(lane, f"m{n}", n) for n in range(5)]
    lane.accept_all(entries, {})
    assert list(lane.queue.startable.fresh) == entries[:3]
    assert [entry.verdicts for entry in entries[3:]] == [{"api": PARKED}] * 2


def test_of_one_key_only_the_first_may_be_sent() -> None:
    lane = make_lane()
    entries = [make_entry(lane, "free", 0), *(make_entry(lane, f"m{n}", n, "k") for n in range(1, 4))]
    lane.accept_all(entries, {})
    assert list(lane.queue.startable.fresh) == entries[:2]


def test_what_waits_in_the_table_blocks_the_later_messages_of_its_key_alone() -> None:
    lane = make_lane()
    entries = [make_entry(lane, "m1", 1, "k"), make_entry(lane, "m3", 3, "k"), make_entry(lane, "other", 4, "l")]
    lane.accept_all(entries, {("api", "k"): 2})
    assert list(lane.queue.startable.fresh) == [entries[0], entries[2]]
    assert entries[1].verdicts is not None


def test_an_entry_whose_successor_was_sent_back_to_the_table_is_not_plain_for_settling_it_releases_that_one() -> None:
    lane = make_lane(limit=8)
    entries = [make_entry(lane, f"m{n}", n, "k") for n in range(8)]
    lane.accept_all(entries, {})
    behind = [entry for entry in entries if entry.verdicts == {"api": BEHIND}]
    assert behind == entries[7:]
    assert [entry.is_plain for entry in entries] == [True] * 6 + [False, False]


def test_what_was_set_aside_and_is_not_settled_blocks_the_later_messages_of_its_key_alone() -> None:
    lane = make_lane()
    lane.queue.set_aside(make_entry(lane, "m1", 1, "k"), PARKED)
    entries = [make_entry(lane, "m2", 2, "k"), make_entry(lane, "other", 3, "l")]
    lane.accept_all(entries, {})
    assert entries[0].verdicts == {"api": BLOCKED}
    assert list(lane.queue.startable.fresh) == entries[1:]


def test_what_comes_behind_a_suspect_is_set_back_with_it() -> None:
    lane = make_lane()
    lane.accept_all([make_entry(lane, "m1", 1, "k")], {})
    suspect = lane.next(0.0)
    assert suspect is not None
    lane.queue.suspect(lane.queue.end_attempt(suspect))
    behind = make_entry(lane, "m2", 2, "k")
    lane.accept_all([make_entry(lane, "free", 0), behind], {})
    assert {*lane.queue.set_back} == {suspect, behind}
