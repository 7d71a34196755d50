"""The guide's endpoint, over real HTTP, on both databases."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs
from support.databases import Database
from support.receiving import BODY, GUIDES, PATH, SECRET, Counting, extracted, graphs
from support.serving import calling, serving

from listeners.http import Limits, Receiver
from outbox import Message
from outbox.errors import SettingsError
from relay.decide.outcome import TAKEN
from relay.destinations.http.destination import HttpDestination
from relay.destinations.http.settings import HttpSettings

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
    receiver = Receiver([SECRET], handler=Counting(), limits=Limits(max_body_bytes=1000))
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

    receiver = Receiver([SECRET], handler=Counting(), limits=Limits(max_body_bytes=1000))
    async with calling(receiver) as client:
        for secret in (SECRET, "wrong"):
            response = await client.post(PATH, content=endless(), headers=GUIDES | {"X-Internal-Secret": secret})
            assert response.status_code == 413


# ------------------------------------------------------------------------- mounted


async def test_an_adopter_mounts_the_router_with_a_handler_of_their_own(database: Database) -> None:
    async def handler(message: Message, session: AsyncSession) -> None:
        await session.execute(
            sa.text("INSERT INTO contents (id, title, source, media_type, sha256) VALUES (:id, 't', 's', 'm', :sha)"),
            {"id": message.data["contentId"], "sha": "0" * 64},
        )

    app = FastAPI()
    app.include_router(Receiver([SECRET], handler=handler, database=database.url).router, prefix="/api")
    async with serving(app) as url, httpx.AsyncClient(trust_env=False, timeout=60) as client:
        response = await client.post(f"{url}/api{PATH}", content=BODY, headers=GUIDES)
    assert response.json() == {"success": True}
    assert database.scalar("SELECT id FROM contents") == "test-content-id"


async def works_with_an_async_session(message: Message, session: AsyncSession) -> None: ...


def works_with_a_session(message: Message, session: sa.orm.Session) -> None: ...


@pytest.mark.parametrize("handler", [works_with_a_session, works_with_an_async_session])
async def test_a_misspelt_path_is_named_in_the_log_and_no_file_is_created(
    handler: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "misspelt.db"
    app = FastAPI()
    app.include_router(Receiver([SECRET], handler=handler, database=f"sqlite:///{path}").router)
    with capture_logs() as lines:
        async with serving(app) as url, httpx.AsyncClient(trust_env=False, timeout=60) as client:
            response = await client.post(f"{url}{PATH}", content=BODY, headers=GUIDES)
    assert (response.status_code, path.exists()) == (500, False)
    (why,) = [line["exception"] for line in lines if line["event"] == "handler_failed"]
    assert f"there is no database at {path}" in why


def test_a_handler_that_asks_for_a_session_needs_a_database() -> None:
    async def handler(message: Message, session: AsyncSession) -> None: ...

    with pytest.raises(SettingsError, match="name the database"):
        Receiver([SECRET], handler=handler)


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
