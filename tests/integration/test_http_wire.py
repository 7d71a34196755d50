"""What goes over the wire, read back by the packages that define it."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from support.receivers import Receiver, Request, answering

from outbox import Message
from relay.decide.outcome import TAKEN
from relay.destinations.http.destination import HttpDestination
from relay.destinations.http.settings import HttpSettings
from relay.destinations.sending.cloudevents import batch, binary_headers

SECRET = "a-shared-secret-of-forty-characters-long"
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def message(**changed: Any) -> Message:
    values = {
        "id": "0197b6f0-0000-7000-8000-000000000001",
        "type": "extraction.completed",
        "source": "/workers/extraction",
        "subject": None,
        "ordering_key": "c-1",
        "body": '{"contentId": "c-1",  "größe": 1.50}',
        "headers": "{}",
        "created_at": "2026-01-01 10:00:00.123456+00",
    } | changed
    return Message(**values)  # type: ignore[arg-type]


async def sent(*messages: Message, **settings: Any) -> list[Request]:
    """Send messages to a receiver that takes everything; return what it saw."""
    async with Receiver() as receiver:
        destination = HttpDestination("api", HttpSettings(url=receiver.url, **({"secret": SECRET} | settings)))
        await destination.start()
        try:
            for each in messages:
                assert await destination.send(each) is TAKEN
        finally:
            await destination.close()
        return receiver.requests


def oracle(request: Request) -> Any:
    return from_http_event(HTTPMessage({k.lower(): v for k, v in request.headers}, request.body))


async def test_the_body_is_the_events_data_byte_for_byte() -> None:
    (request,) = await sent(message())
    assert request.method == "POST"
    assert request.body == '{"contentId": "c-1",  "größe": 1.50}'.encode()
    assert request.header("content-type") == "application/json"


async def test_the_guides_header_carries_the_secret() -> None:
    (request,) = await sent(message())
    assert request.header("X-Internal-Secret") == SECRET


async def test_every_request_has_the_headers_of_its_destination_and_no_message_replaces_one() -> None:
    mine = message(headers={"x-tenant": "the-messages", "x-other": "kept"})
    settings: dict[str, Any] = {"headers": {"X-Tenant": "7"}, "secret_headers": {"Authorization": "Bearer t"}}
    (single,) = await sent(mine, **settings)
    for request in (single, await sent_together(message(), **settings)):
        assert (request.header("x-tenant"), request.header("authorization")) == ("7", "Bearer t")
    assert single.header("x-other") == "kept"


async def test_without_a_secret_nothing_is_signed_and_nothing_invented() -> None:
    (request,) = await sent(message(), secret=None)
    assert request.all("x-internal-secret") == request.all("webhook-signature") == []


async def test_cloudevents_reads_what_we_send() -> None:
    (request,) = await sent(message(subject='Übersicht "100 %"'))
    event = oracle(request)
    assert event.get_id() == "0197b6f0-0000-7000-8000-000000000001"
    assert event.get_type() == "extraction.completed"
    assert event.get_source() == "/workers/extraction"
    assert event.get_subject() == 'Übersicht "100 %"'
    assert event.get_time() == datetime(2026, 1, 1, 10, 0, 0, 123456, UTC)
    assert event.get_data() == {"contentId": "c-1", "größe": 1.5}


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_subject_survives_the_percent_encoding(subject: str) -> None:
    headers = {name.decode(): value.decode() for name, value in binary_headers(message(subject=subject))}
    assert headers["ce-subject"].isascii()
    assert headers["ce-subject"].isprintable()
    assert " " not in headers["ce-subject"]
    event = from_http_event(HTTPMessage({**headers, "content-type": "application/json"}, b"{}"))
    assert event.get_subject() == subject


async def test_what_sql_wrote_and_no_receiver_would_read_is_left_out() -> None:
    (request,) = await sent(message(subject="語" * 910, headers={"x-long": "é" * 2_000, "x-short": "s"}))
    assert request.all("ce-subject") == request.all("x-long") == []
    assert request.header("x-short") == "s"


async def test_standard_webhooks_verifies_what_we_send() -> None:
    (request,) = await sent(message(), signing_secret=WHSEC)
    Webhook(WHSEC).verify(request.body, dict(request.headers))


async def test_by_default_the_signature_is_keyed_with_the_bytes_of_the_secret() -> None:
    (request,) = await sent(message())
    Webhook(SECRET.encode()).verify(request.body, dict(request.headers))


async def test_while_a_key_is_rotated_a_receiver_with_either_verifies() -> None:
    old = "whsec_" + "b2xk" * 10
    (request,) = await sent(message(), signing_secret=WHSEC, signing_secret_previous=old)
    for key in (WHSEC, old):
        Webhook(key).verify(request.body, dict(request.headers))


async def test_every_attempt_has_the_same_id_and_body_and_a_signature_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([time.time() - 60, time.time()])
    monkeypatch.setattr("relay.destinations.http.destination.time", lambda: next(clock))
    first, second = await sent(message(), message(attempt=2))
    assert first.body == second.body
    for name in ("ce-id", "webhook-id", "idempotency-key"):
        assert first.header(name) == second.header(name)
    assert first.header("webhook-timestamp") != second.header("webhook-timestamp")
    assert first.header("webhook-signature") != second.header("webhook-signature")


async def test_the_idempotency_key_is_the_id_as_a_quoted_string() -> None:
    (request,) = await sent(message())
    assert request.header("Idempotency-Key") == '"0197b6f0-0000-7000-8000-000000000001"'


async def test_the_producers_trace_and_headers_go_along() -> None:
    (request,) = await sent(message(headers={"traceparent": TRACEPARENT, "x-tenant": "t 1"}))
    assert request.header("traceparent") == TRACEPARENT
    assert request.header("x-tenant") == "t 1"


@pytest.mark.parametrize(
    "name",
    [
        "X-Internal-Secret", "ce-id", "Webhook-Signature", "Host", "content-length", "a b", "X_Internal_Secret",
        "X.Internal.Secret", "ce_id", "X-Forwarded-For", "X_FORWARDED_HOST", "X-Original-URL", "Forwarded", "X-Real-IP",
    ],
)  # fmt: skip
async def test_a_header_written_by_sql_replaces_none_of_ours(name: str) -> None:
    (request,) = await sent(message(headers={name: "forged"}))
    assert "forged" not in [value for _, value in request.headers]


async def test_a_header_written_by_sql_cannot_break_out_of_its_line() -> None:
    (request,) = await sent(message(headers={"x-note": "a\r\nX-Internal-Secret: forged\r\n\r\nPOST /"}))
    assert request.header("x-note") == "a%0D%0AX-Internal-Secret:%20forged%0D%0A%0D%0APOST%20/"
    assert request.header("X-Internal-Secret") == SECRET


async def test_a_type_or_source_written_by_sql_cannot_break_out_of_its_line() -> None:
    (request,) = await sent(message(type="a\r\nb", source="ü ü"))
    assert request.header("ce-type") == "a%0D%0Ab"
    assert request.header("ce-source") == "%C3%BC%20%C3%BC"


async def test_an_exchange_leaves_no_cookie_behind() -> None:
    async with Receiver(answering(200, set_cookie="session=1")) as receiver:
        destination = HttpDestination("api", HttpSettings(url=receiver.url))
        await destination.start()
        await destination.send(message())
        await destination.send(message())
        await destination.close()
        assert receiver.requests[1].all("cookie") == []


# ---------------------------------------------------------------------- batches


async def sent_together(*messages: Message, **settings: Any) -> Request:
    async with Receiver() as receiver:
        destination = HttpDestination("api", HttpSettings(url=receiver.url, secret=SECRET, batch=100, **settings))
        await destination.start()
        assert await destination.send_many(messages) is TAKEN
        await destination.close()
        return receiver.request


async def test_cloudevents_reads_every_event_of_a_batch() -> None:
    request = await sent_together(
        message(subject='"1" & ü', headers={"traceparent": TRACEPARENT}), message(id="m-2", body='[1, "a"]')
    )
    assert request.header("content-type") == "application/cloudevents-batch+json; charset=utf-8"
    first, second = (JSONFormat().read(None, json.dumps(each)) for each in json.loads(request.body))
    assert first.get_subject() == '"1" & ü'
    assert first.get_extension("traceparent") == TRACEPARENT
    assert first.get_data() == {"contentId": "c-1", "größe": 1.5}
    assert second.get_id() == "m-2"
    assert second.get_data() == [1, "a"]


async def test_the_data_of_an_event_stands_in_a_batch_byte_for_byte() -> None:
    assert '"data":{"contentId": "c-1",  "größe": 1.50}}'.encode() in batch([message()])


async def test_a_batch_is_signed_under_an_id_that_its_events_make() -> None:
    first, again = await sent_together(message(), message(id="m-2")), await sent_together(message(), message(id="m-2"))
    other = await sent_together(message(), message(id="m-3"))
    Webhook(SECRET.encode()).verify(first.body, dict(first.headers))
    assert first.header("webhook-id") == again.header("webhook-id") != other.header("webhook-id")


def test_headers_of_its_own_keep_a_message_out_of_batches_and_a_trace_does_not() -> None:
    destination = HttpDestination("api", HttpSettings(url="http://localhost/", batch=100))
    assert destination.may_share(message(headers={"traceparent": TRACEPARENT}))
    assert not destination.may_share(message(headers={"x-tenant": "t"}))
