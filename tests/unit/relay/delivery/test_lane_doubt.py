"""Which message a lane tries in doubt."""

from __future__ import annotations

from support.lanes import make_entry, make_lane

from relay.decide.outcome import TAKEN, failed
from relay.delivery.lane import Lane


def waiting(types: str) -> Lane:
    """Return a lane in which messages wait, each of a type that is a letter."""
    lane = make_lane(clock=lambda: 0.0)
    for n, letter in enumerate(types):
        lane.accept(make_entry(lane, f"m{n}", n, type_=letter), None)
    return lane


def tried(lane: Lane, count: int, *, bad: str) -> str:
    """Make attempts, of which those of bad types fail; return the types."""
    found = ""
    for _ in range(count):
        entry = lane.next(0.0)
        assert entry is not None
        found += entry.type
        lane.finish(entry, failed("500") if entry.type in bad else TAKEN, 0.0)
    return found


def test_a_type_that_fails_hides_no_message_of_another_type() -> None:
    lane = waiting("x" * 60 + "y" + "x" * 20)
    assert tried(lane, 5, bad="x") == "xxxxy"
    assert lane.breaker.condition == "closed"
