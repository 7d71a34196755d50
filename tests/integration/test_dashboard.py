"""The dashboard, by its real server: it shows what status shows, as text and nothing else, to this machine alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from html import unescape

import httpx
import pytest
from support.commands import Run
from support.databases import Database
from support.ports import free_port
from support.processes import Spawner
from support.scene import Scene, Taker, rejecting, to

from relay.admin.destinations.listing import pause

HOSTILE = "<script>alert('x')</script>\x1b]0;x\x07\"><img src=x onerror=alert(1)>"
Look = Callable[..., httpx.Response]


@pytest.fixture
def look(spawn: Spawner, database: Database) -> Iterator[Look]:
    """The page, from a dashboard in a process of its own."""
    port = free_port()
    process = spawn("outbox", "dashboard", "--port", str(port), env={"DATABASE_URL": database.url})
    process.wait_for_output(f"look at http://127.0.0.1:{port}/", deadline_s=30)

    def get(**headers: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{port}/", headers=headers)

    yield get
    process.interrupt()
    assert process.wait() == 0
    assert "Traceback" not in process.stderr


async def fill(database: Database) -> str:
    """Ten messages of which one dies, two are unrouted; paused by somebody who is up to something."""
    scene = Scene(database)
    scene.emit(8)
    scene.emit(2, type="debug.noise")

    def fate(message: object) -> None:
        rejecting(3)(message)  # type: ignore[arg-type]

    await scene.drain({"a": to(Taker(fate), events=["page.*"])})
    database.execute("UPDATE outbox_delivery SET reason = :reason", reason=HOSTILE)
    pause(database.engine, "a", reason=HOSTILE)
    scene.emit(1)
    return str(database.scalar("SELECT fingerprint FROM outbox_delivery WHERE state = 'dead'"))


def facts(html: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", html))


def test_it_shows_what_status_shows_with_the_commands_to_act(look: Look, database: Database) -> None:
    fingerprint = asyncio.run(fill(database))
    answer = look()
    assert answer.status_code == 200
    shown = facts(answer.text)
    found = Scene(database).status
    assert (shown["Waiting"], shown["Dead"], shown["Unrouted"], shown["Delivered"]) == ("1", "1", "2", "7")
    assert (found.waiting, found.dead, found.unrouted, found.delivered) == (1, 1, 2, 7)
    text = unescape(re.sub(r"<[^>]+>", " ", answer.text))
    for expected in (
        f"outbox dead retry --cause {fingerprint}",
        "outbox resume a",
        "paused",
        "None is alive",
        "pause",
    ):
        assert expected in text


def test_what_is_in_the_database_is_text_and_nothing_else(look: Look, database: Database) -> None:
    asyncio.run(fill(database))
    html = look().text
    assert "&lt;script&gt;" in html
    assert not re.search(r"<(script|img|b|a|link|iframe|form)\b", html)
    assert html.replace("\n", "").isprintable()
    policy = look().headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert look().headers["cache-control"] == "no-store"


def test_it_answers_to_no_name_but_its_own_and_can_change_nothing(look: Look) -> None:
    assert look(Host="evil.example").status_code == 400
    url = str(look().url)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert httpx.request(method, url).status_code == 405
    for path in ("docs", "openapi.json", "redoc"):
        assert httpx.get(url + path).status_code == 404


def test_a_database_that_goes_away_is_said_so_and_a_secret_is_not(look: Look, database: Database) -> None:
    assert look().status_code == 200
    database.execute("ALTER TABLE outbox_meta RENAME TO gone")

    def trouble() -> httpx.Response:
        while (answer := look()).status_code == 200:  # a picture stays fresh for a second
            pass
        return answer

    answer = trouble()
    assert (answer.status_code, "outbox db upgrade" in answer.text) == (503, True)
    database.execute("ALTER TABLE gone RENAME TO outbox_meta")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "db.example"])
def test_it_listens_for_this_machine_alone_unless_it_is_told_otherwise(
    run: Run, sqlite_database: Database, host: str
) -> None:
    ended = run("dashboard", "--host", host, url=sqlite_database.url)
    assert ended.returncode == 2
    assert "--allow-remote" in ended.stderr


def test_without_an_outbox_it_says_what_to_run(run: Run, empty_postgres: Database) -> None:
    ended = run("dashboard", url=empty_postgres.url)
    assert (ended.returncode, "outbox db upgrade" in ended.stderr) == (3, True)
