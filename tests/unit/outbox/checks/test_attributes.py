import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from outbox import (
    Draft,
    Event,
    InvalidDelay,
    InvalidEvent,
    InvalidHeaders,
    InvalidOrderingKey,
    InvalidSource,
    InvalidSubject,
    Outbox,
    UntypedEvent,
)
from outbox.draft import prepare
from outbox.writing.trace import creation


def prepared(event="page.read", data=None, **options):
    data = {} if data is None and isinstance(event, str) else data
    return prepare("outbox", Draft(event, data, **options), creation())


class Untyped(Event):
    pass


class Typed(Event, type="page.attributed"):
    pass


def test_an_event_without_a_type_says_how_to_give_it_one():
    with pytest.raises(UntypedEvent, match=r'class Untyped\(Event, type="some\.thing"\)'):
        prepared(Untyped())


def test_a_type_without_data_asks_for_it():
    with pytest.raises(InvalidEvent, match=r"pass it after the type, or \{\} if it has none"):
        prepare("outbox", Draft("page.read"), {})


def test_an_event_with_data_beside_it_is_refused():
    with pytest.raises(InvalidEvent, match="carries its own data"):
        prepared(Typed(), {"a": 1})


@pytest.mark.parametrize("event", [None, 7, Typed, {"a": 1}, b"page.read"])
def test_what_is_no_event_is_refused(event):
    with pytest.raises(InvalidEvent, match="is not an event"):
        prepared(event)


@pytest.mark.parametrize("key", ["k", "k" * 255, "ключ", " ", "\U0001f600" * 255, None])
def test_an_ordering_key_is_kept_as_given(key):
    assert prepared(ordering_key=key).ordering_key == key


@pytest.mark.parametrize("key", ["", "k" * 256, "a\0b", "\ud800", 7, b"k"])
def test_an_ordering_key_that_cannot_be_stored_is_refused(key):
    with pytest.raises(InvalidOrderingKey, match="1 to 255 characters"):
        prepared(ordering_key=key)


def test_strict_order_without_a_key_is_refused():
    with pytest.raises(InvalidEvent, match="needs an ordering_key"):
        prepared(strict_order=True)


@pytest.mark.parametrize("subject", ["", "s" * 1025, "a\0b", "\udfff", 7])
def test_a_subject_that_cannot_be_stored_is_refused(subject):
    with pytest.raises(InvalidSubject, match="1 to 1,024 characters"):
        prepared(subject=subject)


def test_a_subject_that_no_header_can_hold_is_refused():
    """A percent-encoded character takes up to twelve bytes, and receivers accept about 8 KiB in a line of a request."""
    assert prepared(subject="語" * 888)
    with pytest.raises(InvalidSubject, match="8,001 bytes in a header"):
        prepared(subject="語" * 889)


def test_a_header_that_no_receiver_would_read_is_refused():
    assert prepared(headers={"x-a": "v" * 7_000, "x-b": "v" * 1_000})
    with pytest.raises(InvalidHeaders, match="'x-a' is longer than 8,000 bytes"):
        prepared(headers={"x-a": "v" * 7_998})


@pytest.mark.parametrize("source", ["", "a b", "a\n", "é", "x" * 256, None])
def test_a_source_that_is_no_uri_reference_is_refused(source):
    with pytest.raises(InvalidSource, match="URI reference"):
        Outbox(source=source)


@pytest.mark.parametrize(
    "name",
    [
        "ce-id", "CE-Type", "webhook-id", "Webhook-Signature", "X-Internal-Secret", "idempotency-key", "Content-Type",
        "content-length", "Host", "Authorization", "traceparent", "TraceState", "transfer-encoding", "cloudEvents_id",
        "X_Internal_Secret", "x.internal.secret", "Content_Type", "ce_id", "Webhook_Id", "X-Forwarded-For",
        "X_Forwarded_Host", "Forwarded", "X-Original-URL", "X_Rewrite_URL", "X-Real-IP", "X-HTTP-Method-Override",
        "Via", "CC", "bcc",
    ],
)  # fmt: skip
def test_a_header_that_the_delivery_sets_is_refused_in_any_case(name):
    with pytest.raises(InvalidHeaders, match="choose a name of your own"):
        prepared(headers={name: "x"})


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "é", "a\0", 7])
def test_a_header_name_that_no_wire_can_carry_is_refused(name):
    with pytest.raises(InvalidHeaders, match="is not a header name"):
        prepared(headers={name: "x"})


@pytest.mark.parametrize("value", ["a\r\nb", "a\n", "a\0", "é", "\ud800", 7, None, b"x"])
def test_a_header_value_that_no_wire_can_carry_is_refused_and_not_repeated(value):
    with pytest.raises(InvalidHeaders, match="'x-tenant' holds a value that HTTP cannot carry"):
        prepared(headers={"x-tenant": value})


def test_headers_that_differ_in_case_only_are_refused():
    with pytest.raises(InvalidHeaders, match="upper and lower case"):
        prepared(headers={"X-Tenant": "a", "x-tenant": "b"})


def test_headers_have_a_size():
    assert prepared(headers={"x": "v" * 4095, "y": "v" * 4095}).headers
    with pytest.raises(InvalidHeaders, match="8,192 bytes"):
        prepared(headers={"x": "v" * 4095, "y": "v" * 4096})


def test_headers_are_a_mapping():
    with pytest.raises(InvalidHeaders, match="pass a mapping"):
        prepared(headers=[("a", "b")])


def test_delay_and_due_at_exclude_each_other():
    with pytest.raises(InvalidDelay, match="pass one of them"):
        prepared(delay=1, due_at=datetime.now(UTC))


@pytest.mark.parametrize("delay", [-1, -0.001, timedelta(seconds=-1), float("nan"), float("inf"), 1e18, "5", True])
def test_a_delay_that_is_no_length_of_time_is_refused(delay):
    with pytest.raises(InvalidDelay, match="pass a timedelta, or seconds"):
        prepared(delay=delay)


@pytest.mark.parametrize(("delay", "seconds"), [(90, 90.0), (0.5, 0.5), (timedelta(minutes=1), 60.0), (0, None)])
def test_a_delay_is_a_timedelta_or_seconds_and_none_at_all_when_it_is_zero(delay, seconds):
    assert prepared(delay=delay).delay_s == seconds


@pytest.mark.parametrize("due_at", [datetime(2026, 1, 1), "2026-01-01T00:00:00Z", 1767225600])
def test_due_at_without_a_time_zone_is_refused(due_at):
    with pytest.raises(InvalidDelay, match="with a time zone"):
        prepared(due_at=due_at)


def test_due_at_is_kept_in_utc():
    berlin = timezone(timedelta(hours=2))
    assert prepared(due_at=datetime(2026, 7, 1, 12, tzinfo=berlin)).due_at == datetime(2026, 7, 1, 10, tzinfo=UTC)


def test_due_at_that_is_no_date_in_every_time_zone_is_refused():
    with pytest.raises(InvalidDelay, match="between the years"):
        prepared(due_at=datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))))


def test_a_host_without_opentelemetry_gets_no_trace_headers(monkeypatch):
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    assert prepared().headers == "{}"
    assert "opentelemetry.trace" not in sys.modules


def test_the_hosts_current_span_is_written_into_the_headers():
    from opentelemetry import trace

    context = trace.SpanContext(
        trace_id=0x0AF7651916CD43DD8448EB211C80319C,
        span_id=0x00F067AA0BA902B7,
        is_remote=False,
        trace_flags=trace.TraceFlags(1),
        trace_state=trace.TraceState([("vendor", "x")]),
    )
    with trace.use_span(trace.NonRecordingSpan(context)):
        headers = prepared(headers={"x-tenant": "t"}).headers
    assert headers == (
        '{"x-tenant":"t","traceparent":"00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01","tracestate":"vendor=x"}'
    )


def test_no_span_leaves_no_trace():
    from opentelemetry import trace

    assert not trace.get_current_span().get_span_context().is_valid
    assert prepared().headers == "{}"
