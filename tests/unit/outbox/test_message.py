from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox import Event, Message, Reject, UnknownEvent

ID = "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"


class PageTurned(Event, type="page.turned"):
    page_number: int


def message(body='{"pageNumber": 7}', headers="{}", created_at="2026-01-01 10:00:00+00", type_="page.turned"):
    return Message(ID, type_, "outbox", None, "book-1", body, headers, created_at)


def test_data_is_the_parsed_body_and_parsed_once():
    it = message()
    assert it.data == {"pageNumber": 7}
    assert it.data is it.data


@pytest.mark.parametrize("headers", ['{"tenant": "a"}', {"tenant": "a"}])
def test_a_change_of_a_copy_stays_in_the_copy(headers):
    it = message(headers=headers)
    for _ in range(2):
        copy = it.copy()
        assert (copy.data, copy.headers) == ({"pageNumber": 7}, {"tenant": "a"})
        copy.data.clear()
        copy.headers.clear()
    assert (it.data, it.headers) == ({"pageNumber": 7}, {"tenant": "a"})
    it.data.clear()
    assert it.copy().data == {"pageNumber": 7}
    assert all(getattr(it.copy(), name) == getattr(it, name) for name in ("id", "type", "source", "subject"))
    assert (it.copy().ordering_key, it.copy().attempt, it.copy().created_at) == ("book-1", 1, it.created_at)


@pytest.mark.parametrize("body", ["null", "false", "0", '""', "[]"])
def test_data_may_be_any_json_value(body):
    it = message(body)
    assert it.data is it.data
    assert it.data in (None, False, 0, "", [])


@pytest.mark.parametrize("body", ['{"name": "Zoë"}', '{"name": "Zoë"}'.encode()])
def test_body_is_the_stored_text_in_utf8_byte_for_byte(body):
    it = message(body)
    assert it.body == '{"name": "Zoë"}'.encode()
    assert it.data == {"name": "Zoë"}
    assert it.body == '{"name": "Zoë"}'.encode()


@pytest.mark.parametrize("headers", ['{"x-tenant": "t-1"}', {"x-tenant": "t-1"}])
def test_headers_are_a_dict_whether_they_come_as_text_or_not(headers):
    assert message(headers=headers).headers == {"x-tenant": "t-1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01 10:00:00+00", datetime(2026, 1, 1, 10, tzinfo=UTC)),
        ("2026-01-01 10:00:00.1+00", datetime(2026, 1, 1, 10, 0, 0, 100_000, tzinfo=UTC)),
        ("2026-01-01 10:00:00.123456+00", datetime(2026, 1, 1, 10, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-01-01 15:30:00.5+05:30", datetime(2026, 1, 1, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-01 10:00:00.123", datetime(2026, 1, 1, 10, 0, 0, 123_000, tzinfo=UTC)),
        (datetime(2026, 1, 1, 10, tzinfo=UTC), datetime(2026, 1, 1, 10, tzinfo=UTC)),
    ],
)
def test_created_at_is_read_as_postgresql_and_sqlite_print_it(text, expected):
    assert message(created_at=text).created_at == expected
    assert message(created_at=text).created_at.tzinfo is UTC


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_instant_comes_back_from_postgresqls_text(instant):
    text = instant.isoformat(" ").replace("+00:00", "+00")
    assert message(created_at=text).created_at == instant


def test_the_first_attempt_is_number_one():
    assert message().attempt == 1


def test_event_is_an_instance_of_the_class_with_the_messages_type():
    assert message().event() == PageTurned(page_number=7)


def test_event_takes_a_class_that_has_no_type():
    class Reading(Event):
        page_number: int

    assert message(type_="page.unheard").event(Reading) == Reading(page_number=7)


def test_event_of_an_unknown_type_says_what_to_do():
    with pytest.raises(UnknownEvent, match=r"message\.event\(YourEvent\)"):
        message(type_="page.unheard").event()


def test_data_that_does_not_fit_its_class_is_rejected_without_repeating_it():
    with pytest.raises(Reject, match="pageNumber") as caught:
        message('{"pageNumber": "my secret"}').event()
    assert "my secret" not in str(caught.value)


def test_a_message_shows_its_id_and_type_and_none_of_its_data():
    assert repr(message('{"secret": 1}')) == f"<Message {ID} page.turned attempt 1>"


def test_a_message_takes_no_attributes_but_its_own():
    with pytest.raises(AttributeError):
        message().anything = 1
