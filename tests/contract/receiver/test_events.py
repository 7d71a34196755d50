"""Which requests a receiver takes, under which id, and what it does with them."""

import json
import threading
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from support.databases import Database
from support.receiving import BODY, GUIDES, PATH, SECRET, Counting
from support.serving import calling

from listeners.http import Receiver, events
from outbox import Message, Reject

# ---------------------------------------------------------------- what may come in


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ('application/json; charset="utf-8"', 200),
        ("application/json; charset=latin-1", 415),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("application/jsonp", 415),
        ("", 415),
        (None, 415),
    ],
)
async def test_only_json_in_utf_8_is_read(kind: str | None, status: int) -> None:
    headers = {"X-Internal-Secret": SECRET} | ({} if kind is None else {"Content-Type": kind})
    async with calling(Receiver([SECRET], handler=Counting())) as client:
        assert (await client.post(PATH, content=BODY, headers=headers)).status_code == status


async def test_a_packed_body_is_not_unpacked() -> None:
    async with calling(Receiver([SECRET], handler=Counting())) as client:
        response = await client.post(PATH, content=BODY, headers=GUIDES | {"Content-Encoding": "gzip"})
    assert response.status_code == 415


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe{", 400),
        (b"\xef\xbb\xbf{}", 400),
        (b'{"contentId": NaN}', 400),
        (b'{"contentId": "a", "contentId": "b"}', 400),
        (b"[" * 100_000, 400),
        (b'{"contentId": ' + b"9" * 5000 + b"}", 400),
        (b"null", 422),
        (b'["a"]', 422),
        (b"{}", 422),
        (b'{"contentId": 1}', 422),
        (b'{"contentId": null}', 422),
        (b'{"contentId": ""}', 422),
        (b'{"contentId": "a", "more": 1}', 422),
        (b'{"contentId": "a\\n"}', 422),
        (b'{"contentId": "a b"}', 422),
        (b'{"contentId": "../../etc"}', 422),
        (b'{"contentId": "a\\u0000"}', 422),
        (b'{"contentId": "\\ud800"}', 422),
        (b'{"contentId": "' + b"a" * 256 + b'"}', 422),
        (b'{"contentId": "' + b"a" * 255 + b'"}', 200),
        (b'{"contentId": "a.B_c:d@e~f+g=h/i-9"}', 200),
    ],
)
async def test_only_what_follows_the_schema_reaches_the_handler(body: bytes, status: int) -> None:
    handler = Counting()
    async with calling(Receiver([SECRET], handler=handler)) as client:
        response = await client.post(PATH, content=body, headers=GUIDES)
    assert response.status_code == status
    assert len(handler.seen) == (1 if status == 200 else 0)


@pytest.mark.parametrize("reason", ["unknown_content", "no_extraction"])
async def test_a_content_that_cannot_have_a_baseline_is_refused_with_a_reason(
    client: httpx.AsyncClient, database: Database, reason: str
) -> None:
    if reason == "no_extraction":
        database.execute("DELETE FROM extractions")
    content_id = "unknown-content" if reason == "unknown_content" else "test-content-id"
    response = await client.post(PATH, content=json.dumps({"contentId": content_id}), headers=GUIDES)
    assert (response.status_code, response.json()["reason"]) == (422, reason)


# --------------------------------------------------------------------- idempotency


class Marking:
    """A handler with a session: called once for each event id."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def __call__(self, message: Message, session: Session) -> None:
        self.ids.append(message.id)


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-id": "m 1"},
        {"ce-id": "m%201"},
        {"Idempotency-Key": '"m 1"'},
        {"Idempotency-Key": "m 1"},
        {"webhook-id": "m 1", "ce-id": "other", "Idempotency-Key": '"another"'},
    ],
)
async def test_an_event_is_known_by_its_id_wherever_that_stands(database: Database, headers: dict[str, str]) -> None:
    handler = Marking()
    async with calling(Receiver([SECRET], handler=handler, database=database.url)) as client:
        for given in (headers, {"ce-id": "m%201"}, headers):
            assert (await client.post(PATH, content=BODY, headers=GUIDES | given)).status_code == 200
    assert handler.ids == ["m 1"]


async def test_without_an_id_an_event_is_known_by_its_content(database: Database) -> None:
    handler = Marking()
    async with calling(Receiver([SECRET], handler=handler, database=database.url)) as client:
        for content_id in ("a", "a", "b", "a"):
            body = json.dumps({"contentId": content_id})
            assert (await client.post(PATH, content=body, headers=GUIDES)).status_code == 200
    assert handler.ids == ["content:a", "content:b"]


@pytest.mark.parametrize("headers", [{"webhook-id": ""}, {"ce-id": "%0A"}, {"Idempotency-Key": "x" * 256}])
async def test_an_id_that_cannot_be_kept_is_refused(headers: dict[str, str]) -> None:
    async with calling(Receiver([SECRET], handler=Counting())) as client:
        response = await client.post(PATH, content=BODY, headers=GUIDES | headers)
    assert (response.status_code, response.json()["reason"]) == (400, "event_id")


# ------------------------------------------------------------------- when it fails


class FailsAfterWriting:
    """Writes, and then fails, the first time."""

    def __init__(self) -> None:
        self.attempts = 0

    def __call__(self, message: Message, session: Session) -> None:
        self.attempts += 1
        session.execute(
            sa.text(
                "INSERT INTO contents (id, title, source, media_type, sha256) VALUES ('written', 't', 's', 'm', :sha)"
            ),
            {"sha": "0" * 64},
        )
        if self.attempts == 1:
            raise RuntimeError("the power went out")


async def test_a_handler_that_fails_leaves_nothing_half_done_and_the_sender_comes_again(database: Database) -> None:
    handler = FailsAfterWriting()
    async with calling(Receiver([SECRET], handler=handler, database=database.url)) as client:
        first = await client.post(PATH, content=BODY, headers=GUIDES | {"ce-id": "m-1"})
        after_the_first = (
            database.scalar("SELECT count(*) FROM contents"),
            database.scalar("SELECT count(*) FROM inbox_message"),
        )
        second = await client.post(PATH, content=BODY, headers=GUIDES | {"ce-id": "m-1"})
    assert (first.status_code, first.json()["reason"]) == (500, "handler_failed")
    assert "power" not in first.text
    assert after_the_first == (0, 0)
    assert second.status_code == 200
    assert database.scalar("SELECT count(*) FROM contents") == 1


async def test_what_a_handler_rejects_is_refused_for_good() -> None:
    def reject(message: Message) -> None:
        raise Reject("secret reasons")

    async with calling(Receiver([SECRET], handler=reject)) as client:
        response = await client.post(PATH, content=BODY, headers=GUIDES)
    assert (response.status_code, response.json()["reason"]) == (422, "rejected")
    assert "secret reasons" not in response.text


# --------------------------------------------------------------------- CloudEvents


def event(**changed: Any) -> dict[str, Any]:
    made = {
        "specversion": "1.0",
        "id": "m-1",
        "source": "x",
        "type": "extraction.completed",
        "data": {"contentId": "a"},
    }
    return made | changed


async def post_events(handler: Counting, body: Any, kind: str = "cloudevents-batch") -> httpx.Response:
    headers = GUIDES | {"Content-Type": f"application/{kind}+json"}
    async with calling(Receiver([SECRET], handler=handler)) as client:
        return await client.post(PATH, content=json.dumps(body), headers=headers)


async def test_a_batch_is_taken_event_by_event() -> None:
    handler = Counting()
    assert (await post_events(handler, [event(), event(id="m-2", data={"contentId": "b"})])).status_code == 200
    assert [(m.id, m.data) for m in handler.seen] == [("m-1", {"contentId": "a"}), ("m-2", {"contentId": "b"})]


async def test_a_single_event_may_come_in_structured_mode() -> None:
    handler = Counting()
    assert (await post_events(handler, event(subject="s"), "cloudevents")).status_code == 200
    assert handler.seen[0].subject == "s"


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": {}},
        {"data": {"contentId": "a", "x": 1}},
        {"type": "other"},
        {"specversion": "0.3"},
        {"source": None},
    ],
)
async def test_a_batch_with_a_wrong_event_is_refused_before_any_is_handled(wrong: dict[str, Any]) -> None:
    handler = Counting()
    assert (await post_events(handler, [event(), event(**wrong)])).status_code == 422
    assert handler.seen == []


async def test_binary_mode_gives_the_handler_all_attributes() -> None:
    handler = Counting()
    headers = {"ce-specversion": "1.0", "ce-id": "m-1", "ce-type": "extraction.completed", "ce-source": "/w"}
    headers |= {"ce-subject": "%C3%BC", "ce-time": "2026-01-01T10:00:00Z", "traceparent": "00-x"}
    async with calling(Receiver([SECRET], handler=handler)) as client:
        assert (await client.post(PATH, content=BODY, headers=GUIDES | headers)).status_code == 200
    (seen,) = handler.seen
    assert (seen.source, seen.subject, seen.created_at) == ("/w", "ü", datetime(2026, 1, 1, 10, tzinfo=UTC))
    assert (seen.body, seen.headers) == (BODY, {"traceparent": "00-x"})


async def test_an_event_of_another_type_is_refused() -> None:
    async with calling(Receiver([SECRET], handler=Counting())) as client:
        response = await client.post(PATH, content=BODY, headers=GUIDES | {"ce-type": "other.event"})
    assert (response.status_code, response.json()["reason"]) == (422, "event_type")


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"time": ""}, 422),
        ({"time": "yesterday"}, 422),
        ({"time": "2026-01-31"}, 422),
        ({"time": "2026-01-31T12:00:00"}, 422),
        ({"time": "2026-02-31T12:00:00Z"}, 422),
        ({"time": "2026-01-31T12:00:00Z\n"}, 422),
        ({"time": 1767225600}, 422),
        ({"subject": 7}, 422),
        ({"subject": ["a"]}, 422),
        ({"time": None, "subject": None}, 200),
        ({"time": "2026-01-31t12:00:00.123456789z"}, 200),
        ({"time": "9999-12-31T23:59:59-01:00"}, 200),
    ],
)
async def test_what_an_event_says_of_itself_follows_the_schema(wrong: dict[str, Any], status: int) -> None:
    handler = Counting()
    assert (await post_events(handler, [event(**wrong)])).status_code == status
    assert len(handler.seen) == (status == 200)


@pytest.mark.parametrize(("time", "status"), [("", 422), ("soon", 422), ("2026-01-31T12%3A00%3A00%2B01:00", 200)])
async def test_what_its_headers_say_follows_the_schema(time: str, status: int) -> None:
    async with calling(Receiver([SECRET], handler=Counting())) as client:
        response = await client.post(PATH, content=BODY, headers=GUIDES | {"ce-time": time})
    assert response.status_code == status


@pytest.mark.parametrize(("spaces", "is_large"), [(0, False), (20_000, True)])
async def test_what_is_large_is_read_in_a_thread_of_its_own(
    monkeypatch: pytest.MonkeyPatch, spaces: int, is_large: bool
) -> None:
    read_in: list[threading.Thread] = []
    parse = events.parse

    def watched(*given: Any) -> list[Message]:
        read_in.append(threading.current_thread())
        return parse(*given)

    monkeypatch.setattr("listeners.http.events.parse", watched)
    async with calling(Receiver([SECRET], handler=Counting())) as client:
        assert (await client.post(PATH, content=BODY + b" " * spaces, headers=GUIDES)).status_code == 200
    assert [thread is not threading.main_thread() for thread in read_in] == [is_large]
