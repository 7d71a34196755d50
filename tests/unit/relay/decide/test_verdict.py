"""Verdicts and entries: what is decided about one message, destination by destination."""

import pytest

from relay.decide.verdict import BEHIND, BLOCKED, DELIVERED, PARKED, Verdict, dead, retry
from relay.seam.entry import Entry

ROW = (
    "0197c0de-0000-7000-8000-000000000001", 7, 3, 2, "page.read", "outbox", "s", "k", '{"n": 1}', "{}",
    "2026-01-01 10:00:00+00", "(0,1)", None, None,
)  # fmt: skip


class Lane:
    """All that an entry asks of a lane."""

    def __init__(self, name: str) -> None:
        self.name = name


A, B = Lane("a"), Lane("b")


def entry(*lanes: Lane) -> Entry:
    return Entry(ROW, lanes, 1)


def delivery(lane: Lane = A, attempts: int = 2) -> Entry:
    return Entry.of_delivery((*ROW, lane.name, 5, attempts, 1.5, "retry"), lane, 1)


@pytest.mark.parametrize(
    ("verdict", "state", "charged"),
    [
        (DELIVERED, "delivered", False),
        (PARKED, "parked", False),
        (BLOCKED, "blocked", False),
        (BEHIND, "blocked", False),
        (retry(4.0, "500"), "retry", True),
        (dead("422"), "dead", True),
    ],
)
def test_only_a_retry_and_a_dead_letter_cost_an_attempt(verdict: Verdict, state: str, charged: bool) -> None:
    assert (verdict.state, verdict.charged) == (state, charged)


def test_a_retry_and_a_dead_letter_say_why() -> None:
    assert (retry(4.0, "500", "oops").reason, retry(4.0, "500", "oops").detail) == ("500", "oops")
    assert (dead("422").reason, dead("422").delay_ceiling_s) == ("422", 0)


def test_an_entry_is_complete_when_the_last_of_its_destinations_is_decided() -> None:
    one = entry(A, B)
    assert one.decide("a", DELIVERED) is False
    assert one.decide("b", DELIVERED) is True


def test_an_entry_that_every_destination_took_is_plain() -> None:
    one = entry(A, B)
    one.decide("a", DELIVERED)
    one.decide("b", DELIVERED)
    assert one.is_plain


@pytest.mark.parametrize("verdict", [PARKED, BLOCKED, retry(1, "500"), dead("422")])
def test_an_entry_that_a_destination_did_not_take_is_not_plain_and_each_verdict_is_kept(verdict: Verdict) -> None:
    one = entry(A, B)
    one.decide("a", verdict)
    one.decide("b", DELIVERED)
    assert not one.is_plain
    assert (one.verdict_of("a"), one.verdict_of("b")) == (verdict, DELIVERED)


def test_a_delivery_that_was_read_back_knows_its_record() -> None:
    one = delivery(attempts=2)
    assert (one.destination, one.generation, one.attempts, one.failing_for_s) == ("a", 5, 2, 1.5)
    assert one.new_message().attempt == 3
    assert not one.is_plain


def test_a_message_and_its_delivery_are_different_things_to_hold() -> None:
    assert entry(A).handle != delivery(A).handle
    assert delivery(A).handle != delivery(B).handle
