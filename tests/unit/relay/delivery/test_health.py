"""The log tells of each pause that a destination asks for, but not of hundreds of short ones."""

import pytest
from structlog.testing import capture_logs

from relay.decide.backoff import Policy
from relay.decide.breaker import CircuitBreaker
from relay.decide.outcome import throttled
from relay.delivery.health import SharedHealth
from relay.seam import Entry, ToOwner

THROTTLED, BACK = "destination_throttled", "destination_back"


class Destination:
    """A destination that asks for pauses, and its health."""

    def __init__(self) -> None:
        self.breaker: CircuitBreaker[Entry] = CircuitBreaker(Policy())
        self.health = SharedHealth("api", self.breaker, ToOwner(lambda: None, window=100))

    def pauses(self, at: float, wait_s: float) -> None:
        self.breaker._throttle(throttled("429", wait_s), at)
        self.health.turned("closed", at)
        self.breaker.end_wait(at + wait_s)
        self.health.turned("throttled", at + wait_s)


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
