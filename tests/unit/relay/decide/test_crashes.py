"""What a record of crashes says of the deliveries that it names."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.decide.failures.crashes import Accused, Record

ONE, TWO = ("m-1", "a"), ("m-2", "b")
DELIVERIES = st.tuples(st.text(max_size=5), st.text(max_size=5))
RECORDS = st.builds(
    Record,
    st.none() | st.datetimes(timezones=st.just(UTC)),
    st.dictionaries(DELIVERIES, st.builds(Accused, st.integers(2, 9), st.booleans(), st.booleans())),
    st.sets(DELIVERIES),
    st.booleans(),
)


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    read = Record.parse(record.dump())
    assert (read.until, read.accused, read.started) == (record.until, record.accused, record.started)


def test_a_record_that_says_nothing_is_nothing() -> None:
    assert Record().dump() is None
    assert Record.parse(None) == Record()


@pytest.mark.parametrize("text", ["", "5", "null", "[]", "{}", '{"until": 5}', '{"until": null, "accused": [[]]}'])
def test_text_that_is_no_record_says_nothing(text: str) -> None:
    assert Record.parse(text) == Record()


def test_what_was_under_way_is_accused_of_the_crash_and_of_the_unseen_one_before_it() -> None:
    assert Record(started={ONE, TWO}).after_crash() == {ONE: Accused(2), TWO: Accused(2)}


def test_a_crash_is_not_charged_to_messages_that_only_waited() -> None:
    waiting = {TWO: Accused(2, rested=True)}
    assert Record(accused=waiting, started={ONE}, is_alone=True).after_crash() == {
        **waiting,
        ONE: Accused(2, alone=True),
    }


def test_three_crashes_convict_at_three_attempts() -> None:
    first = Record(started={ONE, TWO}).after_crash()
    assert not any(accused.is_convicted(0, 3) for accused in first.values())
    second = Record(accused=first, started={ONE}, is_alone=True).after_crash()
    assert second[ONE] == Accused(3, alone=True)
    assert (second[ONE].is_convicted(0, 3), second[TWO].is_convicted(0, 3)) == (True, False)


def test_after_any_number_of_crashes_only_an_attempt_alone_convicts() -> None:
    assert not Accused(100).is_convicted(0, 1)
    assert Accused(3, alone=True).is_convicted(0, 1)


def test_attempts_that_were_charged_otherwise_count_too() -> None:
    assert not Accused(3, alone=True).is_convicted(16, 20)
    assert Accused(3, alone=True).is_convicted(17, 20)


def test_a_delivery_that_is_accused_again_has_to_rest_again() -> None:
    rested = Record(accused={ONE: Accused(2, rested=True)}, started={ONE})
    assert rested.after_crash() == {ONE: Accused(3, rested=False)}


def test_the_time_in_a_record_is_read_as_it_was_written() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    assert Record.parse(Record(until=at).dump()).until == at
