"""What a destination returns is checked before the relay uses it."""

from math import nan
from typing import Any

import pytest

from relay.decide.outcome import NO_REASON, TAKEN, Outcome, busy, checked, failed, fingerprint, refused


@pytest.mark.parametrize("given", [None, "taken", [TAKEN], Outcome("mislaid"), Outcome(["taken"])])  # type: ignore[arg-type]
def test_only_an_outcome_of_a_known_kind_is_one(given: object) -> None:
    with pytest.raises(TypeError, match="is not an Outcome"):
        checked(given)


def test_whoever_makes_it_taken_is_taken() -> None:
    assert checked(Outcome("taken", "well received")) is TAKEN


@pytest.mark.parametrize(
    ("reason", "is_then"),
    [
        ("", NO_REASON),
        (None, NO_REASON),
        (404, "404"),
        ("a \0 b", "a \ufffd b"),
        ("\ud83d", "?"),
        ("x" * 9000, "x" * 2000),
    ],
)
def test_its_reason_and_detail_are_text_that_a_database_stores(reason: Any, is_then: str) -> None:
    assert checked(refused(reason)) == refused(is_then)
    assert checked(failed("failed", reason)).detail in (is_then, "")


@pytest.mark.parametrize("wait", ["5", None, object()])
def test_a_wait_that_is_no_number_is_none(wait: Any) -> None:
    assert checked(busy("busy", retry_after_s=wait)).retry_after_s is None


def test_a_wait_stays_a_number() -> None:
    assert checked(busy("busy", retry_after_s=2)).retry_after_s == 2
    assert checked(busy("busy", retry_after_s=nan)).retry_after_s is not None


def test_a_reason_that_no_database_stores_has_a_fingerprint() -> None:
    assert fingerprint("half a pair \ud83d") == fingerprint("half a pair ?")
