"""Who may call a receiver, how often, and what the audit records."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from standardwebhooks import Webhook
from structlog.typing import EventDict
from support.receiving import BODY, GUIDES, OLD, PATH, SECRET, WHSEC, Counting, audited
from support.serving import calling, serving

from listeners.http import Limits, Receiver
from listeners.http.guard import Guard
from outbox.errors import SettingsError

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


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass in which more calls would be allowed."""
    monkeypatch.setattr("listeners.http.receiver.monotonic", lambda: 100.0)


@pytest.mark.usefixtures("no_time")
async def test_too_many_calls_are_told_when_to_come_again() -> None:
    receiver = Receiver([SECRET], handler=Counting(), limits=Limits(rate_per_s=1))
    async with calling(receiver) as client:
        responses = [await client.post(PATH, content=BODY, headers=GUIDES) for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 200, 429, 429]
    assert int(responses[3].headers["retry-after"]) >= 1


@pytest.mark.usefixtures("no_time")
async def test_a_flood_of_bad_secrets_does_not_lock_out_the_real_sender() -> None:
    receiver = Receiver([SECRET], handler=Counting(), limits=Limits(stranger_burst=3))
    async with calling(receiver) as client:
        wrong = [await client.post(PATH, content=BODY, headers={"X-Internal-Secret": "x"}) for _ in range(10)]
        assert (await client.post(PATH, content=BODY, headers=GUIDES)).status_code == 200
    assert [response.status_code for response in wrong] == [401] * 3 + [429] * 7


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


# --------------------------------------------------------------------------- audit


async def test_every_call_leaves_one_record_with_neither_secret_nor_payload(calls: list[EventDict]) -> None:
    async with calling(Receiver([SECRET], handler=Counting())) as client:
        await client.post(PATH, content=BODY, headers=GUIDES | {"ce-id": "m-1"})
        await client.post(PATH, content=BODY, headers={"X-Internal-Secret": "guess-guess"})
        await client.post(PATH, content=b'{"contentId": "a\\nforged"}', headers=GUIDES)
    taken, refused, malformed = audited(calls)
    assert (taken["outcome"], taken["status"], taken["event_id"], taken["client"]) == ("taken", 200, "m-1", "127.0.0.1")
    assert (refused["outcome"], refused["status"], refused["reason"]) == ("refused", 401, "unauthorized")
    assert malformed["reason"] == "schema"
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
    async with serving(app, proxies=proxies) as url, httpx.AsyncClient(trust_env=False, timeout=60) as caller:
        await caller.post(url + PATH, content=BODY, headers=headers)
    assert audited(calls)[0]["client"] == client


@pytest.mark.usefixtures("no_time")
async def test_refused_strangers_leave_few_lines_and_hide_no_call_that_was_taken(calls: list[EventDict]) -> None:
    async with calling(Receiver([SECRET], handler=Counting())) as client:
        for _ in range(60):
            await client.post(PATH, content=BODY, headers={"X-Internal-Secret": "guess-guess"})
            await client.post(PATH, content=BODY, headers=GUIDES)
    found = audited(calls)
    refused = [each for each in found if each["outcome"] == "refused"]
    assert len(found) - len(refused) == 60
    assert len(refused) == 20
    assert sum(each.get("not_logged", 0) for each in found) + len(refused) in (59, 60)


@pytest.mark.usefixtures("no_time")
async def test_all_addresses_of_a_host_of_ipv6_share_a_rate() -> None:
    app = FastAPI()
    app.include_router(Receiver([SECRET], handler=Counting(), limits=Limits(stranger_burst=3)).router)
    async with serving(app, proxies=("127.0.0.1",)) as url, httpx.AsyncClient(trust_env=False, timeout=60) as caller:

        async def call(address: str) -> int:
            headers = GUIDES | {"X-Internal-Secret": "guess", "X-Forwarded-For": address}
            return (await caller.post(url + PATH, content=BODY, headers=headers)).status_code

        assert [await call(f"2001:db8::{n}") for n in range(1, 5)] == [401, 401, 401, 429]
        assert await call("2001:db8:0:1::1") == 401
