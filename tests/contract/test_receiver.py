"""The guide's endpoint, over real HTTP, on both databases."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from standardwebhooks import Webhook
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.databases import Database
from support.serving import calling, serving

from listeners.http import Limits, Receiver
from listeners.http.guard import Guard
from outbox import Message, Reject
from outbox.errors import SettingsError
from relay.decide.outcome import TAKEN
from relay.destinations.http import HttpDestination
from relay.settings import HttpSettings

SECRET = "0123456789abcdef0123456789abcdef"
OLD = "fedcba9876543210fedcba9876543210"
WHSEC = "whsec_" + base64.b64encode(b"k" * 32).decode()
PATH = "/extraction/internal/completed"
GUIDES = {"X-Internal-Secret": SECRET, "Content-Type": "application/json"}
BODY = b'{"contentId": "test-content-id"}'
TOPICS = '[{"topic": "cat", "weight": 1.0, "sentences": [1]}, {"topic": "dog", "weight": 0.5, "sentences": [1]}]'


def extracted(database: Database, content_id: str = "test-content-id") -> None:
    database.execute(
        "INSERT INTO contents (id, title, source, media_type, sha256) VALUES (:id, 't', 's', 'text/plain', :sha)",
        id=content_id,
        sha="0" * 64,
    )
    database.execute("INSERT INTO extractions (content_id, topics) VALUES (:id, :topics)", id=content_id, topics=TOPICS)


def graphs(database: Database) -> int:
    return int(database.scalar("SELECT count(*) FROM topic_graphs WHERE type = 'BASELINE'"))


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Calls a receiver that runs the baseline listener; one content is extracted."""
    extracted(database)
    async with calling(Receiver([SECRET, OLD], database=database.url), database.url) as client:
        yield client


@pytest.fixture
def calls() -> Iterator[list[EventDict]]:
    """The audit's records, as they come."""
    with capture_logs() as records:
        yield records


class Counting:
    """A handler that remembers what it was called with."""

    def __init__(self) -> None:
        self.seen: list[Message] = []

    def __call__(self, message: Message) -> None:
        self.seen.append(message)


def audited(records: list[EventDict]) -> list[EventDict]:
    return [record for record in records if record["event"] == "call"]


# ---------------------------------------------------------------- the guide's way


async def test_the_guides_request_gets_the_guides_answer_when_the_baseline_is_committed(
    client: httpx.AsyncClient, database: Database
) -> None:
    response = await client.post(PATH, content=BODY, headers=GUIDES)
    assert (response.status_code, response.json()) == (200, {"success": True})
    assert len(database.rows("SELECT * FROM topic_graphs WHERE type = 'BASELINE' AND content_id = 'test-content-id'"))


@pytest.mark.parametrize("headers", [{}, {"webhook-id": "m-1"}], ids=["by content", "by id"])
async def test_fifty_simultaneous_duplicates_make_one_graph_and_fifty_successes(
    client: httpx.AsyncClient, database: Database, headers: dict[str, str]
) -> None:
    posts = (client.post(PATH, content=BODY, headers=GUIDES | headers) for _ in range(50))
    assert {response.status_code for response in await asyncio.gather(*posts)} == {200}
    assert graphs(database) == 1


async def test_fifty_different_events_about_one_content_make_one_graph(
    client: httpx.AsyncClient, database: Database
) -> None:
    posts = (client.post(PATH, content=BODY, headers=GUIDES | {"ce-id": f"m-{i}"}) for i in range(50))
    assert {response.status_code for response in await asyncio.gather(*posts)} == {200}
    assert graphs(database) == 1


async def test_our_own_relays_destination_is_taken(client: httpx.AsyncClient, database: Database) -> None:
    url = f"{client.base_url}{PATH}"
    extracted(database, "c-2")
    destination = HttpDestination("api", HttpSettings(url=url, secret=SECRET, batch=10))  # type: ignore[arg-type]
    await destination.start()
    first, second = (
        Message(f"m-{n}", "extraction.completed", "outbox", 'ü "', None, body, "{}", "2026-01-01 10:00:00+00")
        for n, body in ((1, '{"contentId": "test-content-id"}'), (2, '{"contentId": "c-2"}'))
    )
    assert await destination.send(first) is TAKEN
    assert await destination.send_many([first, second]) is TAKEN
    await destination.close()
    assert graphs(database) == 2


# ---------------------------------------------------------- the order of the checks

BROKEN = {
    413: {"content": b"x" * 2000},
    401: {"secret": "wrong"},
    415: {"kind": "text/plain"},
    400: {"content": b"{"},
    422: {"content": b"{}"},
}


@pytest.mark.parametrize("status", BROKEN)
async def test_the_first_check_that_fails_is_the_answer(status: int) -> None:
    """Each request breaks one rule and every rule after it, as far as it can."""
    wrong: dict[str, Any] = {}
    for each in reversed(list(BROKEN)[list(BROKEN).index(status) :]):
        wrong |= BROKEN[each]
    receiver = Receiver([SECRET], handler=Counting(), limits=Limits(body_bytes=1000))
    async with calling(receiver) as client:
        headers = {
            "X-Internal-Secret": wrong.get("secret", SECRET),
            "Content-Type": wrong.get("kind", "application/json"),
        }
        response = await client.post(PATH, content=wrong["content"], headers=headers)
    assert response.status_code == status


async def test_a_body_without_a_declared_length_is_too_large_all_the_same() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    receiver = Receiver([SECRET], handler=Counting(), limits=Limits(body_bytes=1000))
    async with calling(receiver) as client:
        for secret in (SECRET, "wrong"):
            response = await client.post(PATH, content=endless(), headers=GUIDES | {"X-Internal-Secret": secret})
            assert response.status_code == 413


# ------------------------------------------------------------------------ secrets


@pytest.mark.parametrize(
    "given",
    [[], [""], ["wrong"], [SECRET, SECRET], [SECRET, "wrong"], [SECRET + "x"], [SECRET[:-1]], [f"{SECRET},{SECRET}"]],
    ids=["missing", "empty", "wrong", "doubled", "one of two right", "longer", "shorter", "joined"],
)
async def test_every_secret_that_is_not_right_gets_one_and_the_same_answer(
    client: httpx.AsyncClient, given: list[str]
) -> None:
    headers = [("Content-Type", "application/json"), *(("X-Internal-Secret", each) for each in given)]
    response = await client.post(PATH, content=BODY, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "X-Internal-Secret"
    assert response.json() == {
        "statusCode": 401,
        "message": "Invalid internal secret",
        "error": "Unauthorized",
        "reason": "unauthorized",
    }


async def test_the_previous_secret_counts_while_rotating(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, content=BODY, headers=GUIDES | {"X-Internal-Secret": OLD})
    assert response.status_code == 200


@pytest.mark.parametrize("secrets", [[], [""], ["x" * 31], [SECRET, "short"]])
def test_a_receiver_does_not_start_without_a_strong_secret(secrets: list[str]) -> None:
    with pytest.raises(SettingsError, match="openssl rand -hex 32"):
        Receiver(secrets, handler=Counting())
    if all(secrets) and secrets:
        Receiver(secrets, handler=Counting(), allow_weak_secret=True)


def test_every_active_secret_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("listeners.http.guard.hmac.compare_digest", compare)
    guard = Guard([SECRET, OLD])
    for given in ([SECRET.encode()], [OLD.encode()], [b"x" * 1000], []):
        compared.clear()
        guard.admits(given)
        assert len(compared) == 2
        assert {len(digest) for pair in compared for digest in pair} == {32}


# --------------------------------------------------------------------------- rate


async def test_too_many_calls_are_told_when_to_come_again() -> None:
    receiver = Receiver([SECRET], handler=Counting(), limits=Limits(rate_per_s=1))
    async with calling(receiver) as client:
        responses = [await client.post(PATH, content=BODY, headers=GUIDES) for _ in range(4)]
    assert [response.status_code for response in responses[:2]] == [200, 200]
    assert responses[3].status_code == 429
    assert int(responses[3].headers["retry-after"]) >= 1


async def test_a_flood_of_bad_secrets_does_not_lock_out_the_real_sender() -> None:
    receiver = Receiver([SECRET], handler=Counting(), limits=Limits(stranger_burst=3))
    async with calling(receiver) as client:
        wrong = [await client.post(PATH, content=BODY, headers={"X-Internal-Secret": "x"}) for _ in range(10)]
        assert (await client.post(PATH, content=BODY, headers=GUIDES)).status_code == 200
    assert [response.status_code for response in wrong[:3]] == [401] * 3
    assert wrong[-1].status_code == 429


# --------------------------------------------------------------------- signatures


def signed(key: str | bytes = WHSEC, *, at: datetime | None = None, body: bytes = BODY) -> dict[str, str]:
    at = at or datetime.now(UTC)
    made = Webhook(key).sign("m-1", at, body.decode())
    return GUIDES | {"webhook-id": "m-1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": made}


@pytest.fixture
async def signing_client() -> AsyncIterator[httpx.AsyncClient]:
    receiver = Receiver([SECRET], handler=Counting(), signing_secrets=[WHSEC], require_signature=True)
    async with calling(receiver) as client:
        yield client


async def test_a_signature_made_by_standard_webhooks_is_right(signing_client: httpx.AsyncClient) -> None:
    assert (await signing_client.post(PATH, content=BODY, headers=signed())).status_code == 200


WRONG_SIGNATURES = {
    "of another body": lambda: signed(body=b'{"contentId": "other"}'),
    "of another key": lambda: signed(b"x" * 32),
    "too old": lambda: signed(at=datetime.now(UTC) - timedelta(seconds=310)),
    "too new": lambda: signed(at=datetime.now(UTC) + timedelta(seconds=310)),
    "under another id": lambda: signed() | {"webhook-id": "m-2"},
    "under another time": lambda: signed() | {"webhook-timestamp": str(int(time.time()) - 1)},
    "without a time": lambda: {k: v for k, v in signed().items() if k != "webhook-timestamp"},
    "with a time that is none": lambda: signed() | {"webhook-timestamp": "now"},
    "empty": lambda: signed() | {"webhook-signature": ""},
    "garbage": lambda: signed() | {"webhook-signature": "v1,%%% v2,x v1"},
    "missing": lambda: GUIDES,
}


@pytest.mark.parametrize("which", WRONG_SIGNATURES)
async def test_a_signature_that_is_not_right_and_fresh_is_refused(
    signing_client: httpx.AsyncClient, which: str
) -> None:
    response = await signing_client.post(PATH, content=BODY, headers=WRONG_SIGNATURES[which]())
    assert (response.status_code, response.json()["message"]) == (401, "Invalid signature")


async def test_a_wrong_signature_is_refused_even_where_none_is_required() -> None:
    async with calling(Receiver([SECRET], handler=Counting())) as client:
        assert (await client.post(PATH, content=BODY, headers=GUIDES)).status_code == 200
        assert (await client.post(PATH, content=BODY, headers=signed())).status_code == 401
        assert (await client.post(PATH, content=BODY, headers=signed(SECRET.encode()))).status_code == 200


async def test_one_right_signature_among_several_is_enough(signing_client: httpx.AsyncClient) -> None:
    headers = signed()
    headers["webhook-signature"] = f"v1,{'A' * 43}= v1a,x {headers['webhook-signature']}"
    assert (await signing_client.post(PATH, content=BODY, headers=headers)).status_code == 200


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
    content_id = "nobody-knows" if reason == "unknown_content" else "test-content-id"
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


# --------------------------------------------------------------------------- audit


async def test_every_call_leaves_one_record_with_neither_secret_nor_payload(calls: list[EventDict]) -> None:
    async with calling(Receiver([SECRET], handler=Counting())) as client:
        await client.post(PATH, content=BODY, headers=GUIDES | {"ce-id": "m-1"})
        await client.post(PATH, content=BODY, headers={"X-Internal-Secret": "guess-guess"})
        await client.post(PATH, content=b'{"contentId": "a\\nforged"}', headers=GUIDES)
    taken, refused, malformed = audited(calls)
    assert (taken["outcome"], taken["status"], taken["event_id"], taken["client"]) == ("taken", 200, "m-1", "127.0.0.1")
    assert (refused["outcome"], refused["status"], refused["reason"]) == ("refused", 401, "unauthorized")
    assert malformed["reason"] == "content_id"
    shown = repr(calls)
    assert not any(hidden in shown for hidden in (SECRET, "guess-guess", "test-content-id", "forged"))


async def test_no_event_id_forges_a_line_of_the_audit(calls: list[EventDict]) -> None:
    async with calling(Receiver([SECRET], handler=Counting())) as client:
        await client.post(PATH, content=BODY, headers=GUIDES | {"ce-id": "m-1%0A{}"})
    assert audited(calls)[0]["event_id"] is None


@pytest.mark.parametrize(("proxies", "client"), [((), "127.0.0.1"), (("127.0.0.1",), "203.0.113.7")])
async def test_only_a_proxy_we_know_says_who_the_client_is(
    calls: list[EventDict], proxies: tuple[str, ...], client: str
) -> None:
    app = FastAPI()
    app.include_router(Receiver([SECRET], handler=Counting()).router)
    headers = GUIDES | {"X-Forwarded-For": "203.0.113.7"}
    async with serving(app, proxies=proxies) as url, httpx.AsyncClient(trust_env=False) as caller:
        await caller.post(url + PATH, content=BODY, headers=headers)
    assert audited(calls)[0]["client"] == client


# ------------------------------------------------------------------------- mounted


async def test_an_adopter_mounts_the_router_with_a_handler_of_their_own(database: Database) -> None:
    async def handler(message: Message, session: AsyncSession) -> None:
        await session.execute(
            sa.text("INSERT INTO contents (id, title, source, media_type, sha256) VALUES (:id, 't', 's', 'm', :sha)"),
            {"id": message.data["contentId"], "sha": "0" * 64},
        )

    app = FastAPI()
    app.include_router(Receiver([SECRET], handler=handler, database=database.url).router, prefix="/api")
    async with serving(app) as url, httpx.AsyncClient(trust_env=False) as client:
        response = await client.post(f"{url}/api{PATH}", content=BODY, headers=GUIDES)
    assert response.json() == {"success": True}
    assert database.scalar("SELECT id FROM contents") == "test-content-id"


def test_a_handler_that_asks_for_a_session_needs_a_database() -> None:
    with pytest.raises(SettingsError, match="which database"):
        Receiver([SECRET], handler=Marking())


# -------------------------------------------------------------------------- health


async def test_health_and_readiness_need_no_secret(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)


async def test_without_a_schema_it_is_alive_and_not_ready(empty_database: Database) -> None:
    async with calling(Receiver([SECRET], handler=Counting()), empty_database.url) as client:
        assert (await client.get("/healthz")).status_code == 200
        response = await client.get("/readyz")
    assert response.status_code == 503
    assert "outbox db upgrade" in response.json()["detail"]
