"""The log tells of a destination that takes nothing, but not of single failures or of hundreds of short pauses."""

import pytest
from structlog.testing import capture_logs

from relay.decide.backoff import Policy
from relay.decide.breaker import CircuitBreaker
from relay.decide.outcome import throttled
from relay.decide.shared_state import Finding, SharedState
from relay.delivery.health import SharedHealth
from relay.seam import Entry, ToOwner

THROTTLED, BACK, FAILING = "destination_throttled", "destination_back", "destination_failing"


class Destination:
    """A destination that asks for pauses, and its health."""

    def __init__(self) -> None:
        self.breaker: CircuitBreaker[Entry] = CircuitBreaker(Policy())
        self.owner = ToOwner(lambda: None, window=100)
        self.health = SharedHealth("api", self.breaker, self.owner)

    def pauses(self, at: float, wait_s: float) -> None:
        self.breaker._throttle(throttled("429", wait_s), at)
        self.health.turned("closed", at)
        self.breaker.end_wait(at + wait_s)
        self.health.turned("throttled", at + wait_s)

    def fails(self, *at: float) -> None:
        for each in at:
            self.health.failed("no connection", each)

    def takes(self, at: float) -> None:
        self.health.taken_at = at
        self.health.follow(SharedState("api"), at, at, alone=True)


@pytest.fixture
def destination() -> Destination:
    return Destination()


def test_of_short_pauses_one_each_minute_is_logged_with_its_end(destination: Destination) -> None:
    with capture_logs() as lines:
        for at in range(0, 180, 2):
            destination.pauses(at, 1)
    assert [line["event"] for line in lines] == [THROTTLED, BACK] * 3


def test_a_long_pause_is_logged_even_after_a_short_one(destination: Destination) -> None:
    destination.pauses(0, 1)
    with capture_logs() as lines:
        destination.pauses(2, 600)
    assert [line["event"] for line in lines] == [THROTTLED, BACK]


def test_a_destination_that_takes_nothing_of_a_few_messages_is_logged_once_and_so_is_its_return(
    destination: Destination,
) -> None:
    with capture_logs() as lines:
        destination.fails(10, 11, 13, 17, 25, 41)
        destination.takes(50)
        destination.takes(51)
    assert [line["event"] for line in lines] == [FAILING, BACK]
    assert lines[0]["reason"] == "no connection"


def test_failures_between_which_a_message_was_taken_are_not_logged(destination: Destination) -> None:
    with capture_logs() as lines:
        for start in range(0, 60, 6):
            destination.fails(start + 1, start + 2, start + 5)
            destination.takes(start + 5.5)
    assert lines == []


def test_a_destination_that_is_logged_as_failing_and_then_as_down_returns_once(destination: Destination) -> None:
    with capture_logs() as lines:
        destination.fails(1, 7)
        destination.pauses(8, 600)
        destination.takes(700)
    assert [line["event"] for line in lines] == [FAILING, THROTTLED, BACK]


@pytest.mark.parametrize("alone", [True, False])
def test_a_note_that_this_relay_did_not_write_is_withdrawn_if_no_other_relay_is_alive(
    destination: Destination, alone: bool
) -> None:
    noted = SharedState("healthy", note="1 message failing: no connection")
    destination.health.follow(noted, 1, 1, alone=alone)
    assert list(destination.owner.requests) == ([Finding("api", "healthy")] if alone else [])
