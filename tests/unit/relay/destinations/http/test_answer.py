"""From status codes to outcomes, and how long a receiver asks to be left alone."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from relay.decide.outcome import TAKEN, Outcome
from relay.destinations.http.answer import Answer, judge, retry_after_s

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def outcome(status: int, *, on_409: str = "retry", broke_off: str | None = None, **headers: str) -> Outcome:
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return judge(Answer(status, named, broke_off=broke_off), on_409=on_409, now=NOW)


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        ("taken", (200, 201, 202, 204, 207, 299)),
        ("refused", (400, 413, 415, 422)),
        ("busy", (409, 425)),
        ("unreachable", (401, 407)),
        ("gone", (410,)),
        ("throttled", (429,)),
        ("failed", (100, 101, 408, 411, 414, 451, 500, 501, 505, 599, 999)),
        ("unanswered", (301, 302, 307, 308, 403, 404, 405, 502, 503, 504)),
    ],
)
def test_a_status_means_what_the_design_says(kind: str, statuses: tuple[int, ...]) -> None:
    assert {outcome(status).kind for status in statuses} == {kind}


def test_a_conflict_means_delivered_where_that_is_configured() -> None:
    assert outcome(409, on_409="delivered") is TAKEN
    assert outcome(425, on_409="delivered").kind == "busy"


def test_a_success_whose_body_broke_off_is_no_success() -> None:
    assert outcome(200, broke_off="the connection was closed").kind == "unanswered"


def test_503_throttles_only_if_it_says_for_how_long() -> None:
    assert outcome(503, retry_after="7") == Outcome("throttled", "answered 503 Service Unavailable", "", 7.0)
    assert outcome(503, retry_after="soon").kind == "unanswered"


def test_a_busy_receiver_may_say_when_to_come_back() -> None:
    assert outcome(409, retry_after="3").retry_after_s == 3.0


def test_retry_after_may_be_an_instant() -> None:
    assert outcome(429, retry_after="Thu, 01 Jan 2026 12:00:30 GMT").retry_after_s == 30.0


def test_an_instant_is_measured_by_the_receivers_own_clock() -> None:
    skewed = outcome(429, date="Thu, 01 Jan 2026 15:00:00 GMT", retry_after="Thu, 01 Jan 2026 15:00:05 GMT")
    assert skewed.retry_after_s == 5.0


def test_an_instant_in_the_past_is_now() -> None:
    assert outcome(429, retry_after="Thu, 01 Jan 1970 00:00:00 GMT").retry_after_s == 0.0


@pytest.mark.parametrize(
    "text", ["", "soon", "-5", "1e9", "0x10", "٣", "NaN", "inf", "Thu, 99 Foo 2026", "\x00", "1;2"]
)
def test_a_retry_after_that_makes_no_sense_is_ignored(text: str) -> None:
    assert retry_after_s({"Retry-After": text}, NOW) is None
    assert outcome(429, retry_after=text).retry_after_s == 0.0


@given(st.text(max_size=60))
def test_no_retry_after_breaks_anything(text: str) -> None:
    wait_s = retry_after_s({"Retry-After": text}, NOW)
    assert wait_s is None or wait_s >= 0


@given(st.integers(min_value=0, max_value=10**9))
def test_seconds_and_the_same_instant_are_the_same_wait(seconds: int) -> None:
    instant = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after_s({"Retry-After": str(seconds)}, NOW) == retry_after_s({"Retry-After": instant}, NOW) == seconds


def test_a_redirect_says_that_it_is_not_followed() -> None:
    assert "redirects are not followed" in outcome(302, location="http://elsewhere/").reason
