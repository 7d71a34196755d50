"""What one relay starts at a destination with a rate limit: its share of the budget, in its time, and nothing more."""

from typing import Any

import pytest
from support.lanes import make_entry, make_lane

from relay.decide.outcome import TAKEN, unreachable
from relay.decide.rate import Rate
from relay.delivery.admission import VALID_S
from relay.delivery.lane import Lane
from relay.seam import Claim
from relay.seam.entry import Entry

FIFTY = Rate(50.0, 50, "50/s")


class Limited:
    """A lane with a limit, at a time that the test says, and what it asks for."""

    def __init__(self, rate: Rate = FIFTY, messages: int = 100) -> None:
        self.now = 1000.0
        self.requests: list[Any] = []
        self.called = 0
        self.lane: Lane = make_lane(
            concurrency=1000,
            clock=lambda: self.now,
            rate=rate,
            requests=self.requests,
        )
        self.lane.on_ready = self._on_ready
        for position in range(messages):
            self.lane.accept(make_entry(self.lane, f"m{position}", position), None)

    @property
    def claims(self) -> list[Claim]:
        return [each for each in self.requests if isinstance(each, Claim)]

    def _on_ready(self, _count: int) -> None:
        self.called += 1

    def start_all(self) -> list[Entry]:
        """Start all that may start."""
        found = []
        while (entry := self.lane.next(self.now)) is not None:
            found.append(entry)
        return found

    def answer(self, granted: int, wait_s: float = 0.0) -> None:
        assert self.lane.admission.rate_limit is not None
        self.lane.admission.rate_limit.answer(granted, wait_s, self.now)
        self.lane.announce()


def test_nothing_starts_before_a_share_is_granted_and_one_question_is_enough() -> None:
    limited = Limited()
    assert limited.start_all() == limited.start_all() == []
    assert limited.claims == [Claim("api", 13, FIFTY)], "what may start in a quarter of a second"
    assert limited.lane.next_at(limited.now) is None, "the answer wakes it"


def test_a_share_is_started_and_then_the_next_one_asked_for() -> None:
    limited = Limited()
    limited.start_all()
    limited.answer(13)
    assert limited.called == 1
    assert len(limited.start_all()) == 13
    assert len(limited.claims) == 2


def test_no_more_is_asked_for_than_waits() -> None:
    limited = Limited(messages=3)
    limited.start_all()
    assert limited.claims[0].want == 3


def test_an_idle_lane_asks_for_nothing() -> None:
    limited = Limited(messages=0)
    assert limited.start_all() == []
    assert limited.claims == []


def test_a_share_that_was_not_used_in_its_time_is_lost() -> None:
    limited = Limited(messages=2)
    limited.start_all()
    limited.answer(2)
    limited.now += VALID_S
    assert limited.start_all() == []
    assert len(limited.claims) == 2


def test_when_the_budget_is_used_up_it_asks_when_there_is_something_again_and_not_for_each() -> None:
    limited = Limited()
    limited.start_all()
    limited.answer(0, wait_s=0.02)
    at = limited.lane.next_at(limited.now)
    assert at == pytest.approx(limited.now + 0.02 + 4 / 50)
    limited.now = at - 0.001
    assert limited.start_all() == []
    assert len(limited.claims) == 1
    limited.now = at
    assert limited.start_all() == []
    assert len(limited.claims) == 2


def test_a_part_of_what_was_wanted_says_that_the_budget_is_used_up() -> None:
    limited = Limited()
    limited.start_all()
    limited.answer(4, wait_s=0.02)
    assert len(limited.start_all()) == 4
    assert len(limited.claims) == 1
    assert (limited.lane.next_at(limited.now) or 0) > limited.now


def test_each_message_of_a_batch_is_an_attempt() -> None:
    limited = Limited()
    limited.start_all()
    limited.answer(13)
    first = limited.lane.next(limited.now)
    others = limited.lane.companions(lambda _: True, 99, limited.now)
    assert first is not None
    assert len(others) == 12
    assert limited.lane.next(limited.now) is None


def test_each_retry_is_an_attempt() -> None:
    limited = Limited(messages=1)
    limited.start_all()
    limited.answer(1)
    (entry,) = limited.start_all()
    limited.lane.finish(entry, unreachable("refused"), limited.now)
    limited.now += 30.0
    assert limited.start_all() == []
    assert len(limited.claims) == 2


def test_a_probe_is_an_attempt_and_asks_for_one() -> None:
    limited = Limited()
    limited.start_all()
    limited.answer(13)
    started = limited.start_all()
    limited.answer(0)
    for entry in started:
        limited.lane.finish(entry, unreachable("refused"), limited.now)
    assert limited.lane.breaker.condition == "open"
    limited.now += 1.0  # the budget has room again, and a probe is due
    assert limited.start_all() == []
    assert limited.claims[-1].want == 1
    limited.answer(1)
    (probe,) = limited.start_all()
    limited.lane.finish(probe, TAKEN, limited.now)
    assert limited.lane.breaker.condition == "closed"


def test_an_attempt_that_did_not_start_leaves_its_share() -> None:
    limited = Limited(messages=1)
    limited.start_all()
    limited.answer(1)
    (entry,) = limited.start_all()
    limited.lane.withdraw(entry)
    assert limited.start_all() == [entry]


def test_while_something_else_keeps_attempts_from_starting_nothing_rings() -> None:
    """The first failure of a streak narrows the lane: the attempt under way wakes it up when it ends."""
    limited = Limited(messages=2)
    limited.lane.concurrency = 1
    limited.start_all()
    limited.answer(2)
    first, second = limited.start_all()
    limited.lane.accept(make_entry(limited.lane, "third", 3), None)
    limited.lane.finish(first, unreachable("refused"), limited.now)
    assert limited.start_all() == []
    assert (limited.lane.next_at(limited.now) or 0) > limited.now
    limited.lane.finish(second, TAKEN, limited.now)
    assert limited.start_all() == []
    assert len(limited.claims) == 2


def test_a_lane_that_waits_for_its_limit_is_not_at_rest() -> None:
    limited = Limited(messages=1)
    assert not limited.lane.is_at_rest


def test_a_lane_without_a_limit_asks_for_nothing() -> None:
    lane: Any = make_lane(concurrency=10)
    lane.accept(make_entry(lane, "m", 0), None)
    assert lane.next(0.0) is not None
