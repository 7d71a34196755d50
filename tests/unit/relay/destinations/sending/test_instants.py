"""The time of a message, as CloudEvents write it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox import Message
from relay.destinations.sending.instants import rfc3339

INSTANTS = st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC))


def message(created_at: str | datetime) -> Message:
    return Message("id", "a.b", "outbox", None, None, "{}", "{}", created_at)


def as_postgresql_prints(instant: datetime) -> str:
    """A fraction of a second without the zeros at its end."""
    seconds, point, fraction = instant.strftime("%Y-%m-%d %H:%M:%S.%f").partition(".")
    return f"{seconds}{point}{fraction}".rstrip("0").rstrip(".") + "+00" if fraction.strip("0") else f"{seconds}+00"


@given(INSTANTS)
def test_a_time_is_the_same_as_text_of_postgresql_and_parsed(instant: datetime) -> None:
    expected = instant.isoformat().replace("+00:00", "Z")
    assert rfc3339(message(as_postgresql_prints(instant))) == expected
    assert rfc3339(message(instant)) == expected
    assert rfc3339(message(as_postgresql_prints(instant)), "+00:00") == instant.isoformat()


@pytest.mark.parametrize("text", ["2026-01-01T10:00:00Z", "2026-01-01 11:00:00+01", "2026-01-01 10:00:00"])
def test_a_time_that_is_written_otherwise_is_the_same(text: str) -> None:
    assert rfc3339(message(text)) == "2026-01-01T10:00:00Z"
