"""The dashboard and its API on a real server: who gets in, what they may do, and what is never shown."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from support.commands import Run
from support.dashboards import OPERATOR, VIEWER, Dashboard, serving
from support.databases import Database
from support.ports import free_port
from support.processes import Spawner
from support.scene import Scene, Taker, rejecting, to
from support.waiting import eventually

from outbox_cli.dashboard import Person, create_app
from relay import Settings
from relay.admin.access.queries import now
from relay.admin.timeline.samples import store
from relay.admin.timeline.series import series

HOSTILE = "<script>alert('x')</script>\x1b]0;x\x07\"><img src=x onerror=alert(1)>"
PAGES = ("/", "/messages", "/dead", "/destinations", "/replay", "/audit", "/content")


def settings(database: Database, **options: Any) -> Settings:
    return Settings(database_url=database.url, **options)


@pytest.fixture
def dashboard(database: Database) -> Iterator[Dashboard]:
    with serving(settings(database, redact=("data.pad",)), allow_changes=True) as found:
        yield found


def client(dashboard: Dashboard, token: str | None = OPERATOR, **headers: str) -> httpx.Client:
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return httpx.Client(base_url=dashboard.url, headers={**headers, "X-Actor": "ada"}, timeout=60, verify=False)


async def fill(database: Database) -> None:
    """Ten messages, of which two die and two are unrouted."""
    scene = Scene(database)
    scene.emit(8, pad=9)
    scene.emit(2, type="debug.noise")
    await scene.drain({"a": to(Taker(rejecting(3, 5)), events=["page.*"])})


def ask(app: Any, path: str, address: str = "127.0.0.1", **headers: str) -> httpx.Response:
    """Send one request to an application, from this address."""

    async def answer() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://outbox.example", timeout=60, verify=False
        ) as asker:
            return await asker.get(path, headers=headers)

    return asyncio.run(answer())


def finished(browser: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """Return the change after it has ended."""
    assert answer.status_code == 200, answer.text
    job = answer.json()["job"]
    found: dict[str, Any] = {}

    def has_ended() -> bool:
        found.update(browser.get(f"/jobs/{job['id']}.json").json())
        return bool(found["ended"])

    eventually(has_ended, what="the change ends")
    return found


def states(database: Database) -> list[str]:
    return sorted(row.state for row in database.rows("SELECT state FROM outbox_delivery"))


# ------------------------------------------------------------------------------------------------------------- who


def test_it_is_closed_until_a_token_opens_it(dashboard: Dashboard) -> None:
    with client(dashboard, None) as anonymous, client(dashboard, "wrong-token-0123456789") as guesser:
        for path in (*PAGES, "/dead/retry?all=1", "/jobs/x"):
            answer = anonymous.get(path)
            assert (answer.status_code, answer.headers["location"].startswith("/login?to=")) == (303, True)
        for path in ("/overview.json", "/messages.json", "/series.json", "/openapi.json"):
            assert anonymous.get(path).status_code == 401
        assert guesser.get("/overview.json").status_code == 401
        assert anonymous.post("/destinations/a/pause.json", json={}).status_code == 401


def test_only_those_who_are_logged_in_see_which_database_it_is(dashboard: Dashboard, database: Database) -> None:
    name = str(database.engine.url.database)
    with client(dashboard, None) as stranger, client(dashboard) as operator:
        answers = [
            stranger.get("/login"),
            stranger.post("/login", data={"token": "guess"}),
            stranger.post("/login", data={"token": "guess"}, headers={"Origin": "http://elsewhere.example"}),
            stranger.get("/nowhere"),
            stranger.put("/login"),
        ]
        assert [answer.status_code for answer in answers] == [200, 401, 403, 404, 405]
        assert [answer.url.path for answer in answers if name in answer.text] == []
        assert name in operator.get("/").text


def test_guessing_is_throttled(dashboard: Dashboard) -> None:
    with client(dashboard, None) as guesser:
        codes = [guesser.post("/login", data={"token": f"guess number {n}"}).status_code for n in range(7)]
        assert codes[:5] == [401] * 5
        answer = guesser.post("/login", data={"token": OPERATOR})
        assert (codes[-1], answer.status_code) == (429, 429)


def test_a_session_is_a_cookie_that_scripts_and_other_sites_do_not_get(dashboard: Dashboard) -> None:
    with client(dashboard, None) as browser:
        answer = browser.post("/login", data={"token": OPERATOR, "name": "Ada", "to": "/dead"})
        cookie = answer.headers["set-cookie"]
        assert answer.headers["location"] == "/dead"
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert browser.get("/dead").status_code == 200
        csrf = re.search(r'name="csrf" value="(\w+)"', browser.get("/").text)
        assert csrf is not None
        assert browser.post("/logout", data={"csrf": csrf[1]}).headers["location"] == "/login"
        assert browser.get("/dead").status_code == 303


def test_a_change_needs_our_own_form(dashboard: Dashboard, database: Database) -> None:
    asyncio.run(fill(database))
    with client(dashboard, None) as browser:
        browser.post("/login", data={"token": OPERATOR, "name": "Ada"})
        csrf = re.search(r'name="csrf" value="(\w+)"', browser.get("/").text)
        assert csrf is not None
        assert browser.post("/destinations/a/pause", data={"reason": "x"}).status_code == 403
        assert browser.post("/destinations/a/pause", data={"csrf": "0" * 64}).status_code == 403
        crossing = {"Sec-Fetch-Site": "cross-site"}
        assert browser.post("/destinations/a/pause", data={"csrf": csrf[1]}, headers=crossing).status_code == 403
        assert database.scalar("SELECT state FROM outbox_destination") == "healthy"
        assert browser.post("/destinations/a/pause", data={"csrf": csrf[1]}).status_code == 303
        assert database.scalar("SELECT state FROM outbox_destination") == "paused"


def test_a_viewer_looks_and_changes_nothing(dashboard: Dashboard, database: Database) -> None:
    asyncio.run(fill(database))
    with client(dashboard, VIEWER) as viewer:
        assert viewer.get("/dead.json").json()["total"] == 2
        for path in ("/dead/retry.json", "/dead/discard.json", "/destinations/a/pause.json", "/replay.json"):
            assert viewer.post(path, json={"all": True, "to": "a"}).status_code == 403
    assert states(database) == ["dead", "dead"]


def test_without_allow_changes_an_operator_is_a_viewer(sqlite_database: Database) -> None:
    with serving(settings(sqlite_database)) as found, client(found) as operator:
        answer = operator.post("/dead/retry.json", json={"all": True})
        assert (answer.status_code, "--allow-changes" in answer.text) == (403, True)


def test_a_header_is_believed_from_a_trusted_proxy_only(sqlite_database: Database) -> None:
    from outbox_cli.dashboard import Access
    from relay.serving.clients import Networks

    def status_from(address: str) -> int:
        access = Access(user_header="X-Forwarded-User", proxies=Networks(["10.0.0.0/8"]))
        app = create_app(settings(sqlite_database), access=access, hosts=["outbox.example"])
        return ask(app, "/audit.json", address, **{"X-Forwarded-User": "ada"}).status_code

    assert (status_from("10.1.2.3"), status_from("192.0.2.1")) == (200, 401)


def test_an_application_mounts_it_behind_its_own_login(sqlite_database: Database) -> None:
    def who(request: Any) -> Person | None:
        name = request.headers.get("x-user")
        return Person(name, may_change=name == "ada") if name else None

    app = FastAPI()
    app.mount("/outbox", create_app(settings(sqlite_database), who=who))
    page = ask(app, "/outbox/", **{"X-User": "ada"})
    assert page.status_code == 200
    addresses = re.findall(r'(?:href|src|action)="(/[^"]*)"', page.text)
    assert [address for address in addresses if not address.startswith("/outbox/")] == []
    assert len(addresses) > 10
    assert ask(app, "/outbox/").status_code == 401
    with pytest.raises(ValueError, match="who"):
        create_app(settings(sqlite_database))


def test_it_answers_under_no_other_name_and_tells_browsers_to_trust_nothing_else(dashboard: Dashboard) -> None:
    with client(dashboard) as browser:
        assert browser.get("/", headers={"Host": "evil.example"}).status_code == 400
        answer = browser.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=|\sstyle=|javascript:", answer.text)


# ------------------------------------------------------------------------------------------------------------ verbs


def test_dead_letters_are_retried_and_discarded_by_cause_and_the_audit_says_who(
    dashboard: Dashboard, database: Database
) -> None:
    asyncio.run(fill(database))
    with client(dashboard) as ada:
        cause = ada.get("/dead.json").json()["causes"][0]
        asked = ada.get("/dead/retry.json", params={"cause": cause["fingerprint"]}).json()
        assert asked["count"] == cause["count"]
        done = finished(ada, ada.post("/dead/retry.json", json={"cause": cause["fingerprint"], "reason": "mended"}))
        assert (done["done"], done["failed"]) == (cause["count"], None)
        rest = 2 - cause["count"]
        if rest:
            finished(ada, ada.post("/dead/discard.json", json={"all": True}))
        entry = next(e for e in ada.get("/audit.json").json()["entries"] if e["action"] == "dead retry")
        assert (entry["actor"], entry["reason"], entry["count"]) == ("ada", "mended", cause["count"])
    assert "dead" not in states(database)


def test_no_change_chooses_everything_by_accident(dashboard: Dashboard, database: Database) -> None:
    asyncio.run(fill(database))
    with client(dashboard) as ada:
        assert ada.post("/dead/discard.json", json={"cause": ""}).status_code == 422
        assert ada.post("/dead/discard.json", json={}).status_code == 422
    assert states(database) == ["dead", "dead"]


def test_a_dead_letter_is_edited_and_sent_again_as_a_message_of_its_own(
    dashboard: Dashboard, database: Database
) -> None:
    asyncio.run(fill(database))
    id_ = str(database.scalar("SELECT min(CAST(message_id AS text)) FROM outbox_delivery"))
    with client(dashboard) as ada:
        shown = ada.get(f"/messages/{id_}.json").json()["detail"]["data"]
        assert shown["pad"] == "***"
        done = finished(ada, ada.post("/dead/edit.json", json={"id": id_, "data": '{"n": 70, "pad": "***"}'}))
        assert (done["done"], done["failed"]) == (1, None)
        many = finished(ada, ada.post("/dead/edit.json", json={"all": True, "patch": '{"n": 71}'}))
        assert (many["done"], many["failed"]) == (1, None)
    taker = Taker()
    asyncio.run(Scene(database).drain({"a": to(taker, events=["page.*"])}))
    assert sorted(taker.taken) == [70, 71]
    edited = next(attempt for attempt in taker.attempts if attempt.n == 70)
    with client(dashboard) as ada:
        assert f'href="/messages/{id_}"' in ada.get(f"/messages/{edited.id}").text  # it names the one it replaces
    body = edited.body
    assert b'"xxxxxxxxx"' in body  # an unchanged mask keeps the value that it hides


def test_data_that_cannot_be_stored_changes_nothing(dashboard: Dashboard, database: Database) -> None:
    asyncio.run(fill(database))
    id_ = str(database.scalar("SELECT min(CAST(message_id AS text)) FROM outbox_delivery"))
    with client(dashboard) as ada:
        assert ada.post("/dead/edit.json", json={"id": id_, "data": "{"}).status_code == 422
        assert ada.post("/dead/edit.json", json={"all": True, "data": "{}"}).status_code == 422
        ended = finished(ada, ada.post("/dead/edit.json", json={"id": id_, "data": '"\\u0000"'}))
        assert "cannot be stored" in ended["failed"]
    assert states(database) == ["dead", "dead"]


def test_a_destination_is_paused_resumed_and_tested(dashboard: Dashboard, database: Database) -> None:
    asyncio.run(fill(database))
    with client(dashboard) as ada:
        assert ada.post("/destinations/a/pause.json", json={"reason": "until noon"}).status_code == 200
        shown = ada.get("/destinations.json").json()["destinations"][0]
        assert (shown["word"], "until noon" in shown["reason"], "resumes" in shown["outlook"]) == ("paused", True, True)
        assert ada.post("/destinations/a/resume.json", json={}).status_code == 200
        assert ada.get("/destinations.json").json()["destinations"][0]["word"] == "healthy"
        assert ada.post("/destinations/b/pause.json", json={}).status_code == 422


def test_a_replay_is_looked_at_first(dashboard: Dashboard, database: Database) -> None:
    asyncio.run(fill(database))
    with client(dashboard) as ada:
        planned = ada.get("/replay.json", params={"to": "a", "type": "page.*", "since": "1h"}).json()
        assert [each["count"] for each in planned["found"]] == [6]
        assert database.scalar("SELECT count(*) FROM outbox_delivery") == 2
        done = finished(ada, ada.post("/replay.json", json={"to": "a", "type": "page.*", "rate": 10_000}))
        assert done["done"] == 6
        assert "no destination" in ada.get("/replay.json", params={"to": "nowhere"}).json()["trouble"]


# ---------------------------------------------------------------------------------------------------------- showing


def test_it_shows_what_status_shows(dashboard: Dashboard, database: Database) -> None:
    asyncio.run(fill(database))
    found = Scene(database).status
    with client(dashboard) as ada:
        shown = ada.get("/overview.json").json()["status"]
        counts = ada.get("/messages.json").json()["counts"]
    assert (shown["dead"], shown["unrouted"], shown["delivered"]) == (found.dead, found.unrouted, found.delivered)
    assert (counts["dead"], counts["unrouted"], counts["delivered"]) == (2, 2, 6)


def test_a_message_says_why_it_is_not_there_yet(dashboard: Dashboard, database: Database) -> None:
    scene = Scene(database)
    scene.emit_keys(["k", "k", "k"])
    asyncio.run(scene.drain({"a": to(Taker(rejecting(0)), events=["page.*"])}))
    with client(dashboard) as ada:
        rows = ada.get("/messages.json", params={"q": "key:k state:blocked"}).json()["messages"]
        life = ada.get(f"/messages/{rows[0]['id']}.json").json()
    assert "retry or discard that one" in life["timeline"][-1]["detail"]


def test_a_message_that_no_subscription_wants_is_not_said_to_be_on_its_way(
    dashboard: Dashboard, database: Database
) -> None:
    asyncio.run(fill(database))
    id_ = database.scalar("SELECT CAST(id AS text) FROM outbox_message WHERE state = 'unrouted' LIMIT 1")
    with client(dashboard) as ada:
        said = ada.get(f"/messages/{id_}").text
    assert ("No destination wants it." in said, "On its way." in said) == (True, False)


def test_a_search_that_means_nothing_names_what_can_be_searched(dashboard: Dashboard) -> None:
    with client(dashboard) as ada:
        assert "colour: is not a filter" in ada.get("/messages", params={"q": "colour:red"}).text
        id_ = "0197c0de-0000-7000-8000-000000000000"
        assert ada.get("/messages", params={"q": id_}).headers["location"] == f"/messages/{id_}"
        assert ada.get(f"/messages/{id_}").status_code == 404


def test_what_was_measured_is_kept_over_restarts(dashboard: Dashboard, database: Database) -> None:
    asyncio.run(fill(database))
    with database.engine.connect() as connection:
        at = now(connection)
        found = series(connection, at - timedelta(minutes=5), at + timedelta(minutes=1), 15)
    assert sum(value or 0 for value in found.lines["delivered_per_s"]) * found.step_s == pytest.approx(6, rel=0.01)
    assert sum(value or 0 for value in found.destinations["a"]["died"]) == 2
    (died,) = found.died_by_cause.values()
    assert sum(value or 0 for value in died) == 2
    with client(dashboard) as ada:
        lengths = {span: len(ada.get("/series.json", params={"span": span}).json()["at"]) for span in ("15m", "1h")}
        assert lengths == {"15m": 60, "1h": 240}


def test_a_destination_has_a_page_with_its_own_facts_and_series(dashboard: Dashboard, database: Database) -> None:
    asyncio.run(fill(database))
    with database.engine.begin() as connection:
        store(connection, now(connection) - timedelta(minutes=1), "r", 15, {"verdicts": {"a": {"delivered": 15}}})
    with client(dashboard) as ada:
        found = ada.get("/destinations/a.json").json()
        assert (found["destination"]["name"], found["destination"]["dead"]) == ("a", 2)
        assert [cause["count"] for cause in found["causes"]] == [2]
        page = ada.get("/destinations/a").text
        assert 'data-of="a"' in page
        assert page.count("data-chart=") == 6
        own = ada.get("/series.json", params={"span": "15m", "destination": "a"}).json()
        whole = ada.get("/series.json", params={"span": "15m"}).json()
        assert own["destinations"] == {}
        assert {"p50_s", "p99_s", "delivered_per_s", "failed_per_s"} <= set(whole["destinations"]["a"])
        assert {"failed_by_cause", "died_by_cause"} <= set(whole)
        assert (ada.get("/destinations/none").status_code, ada.get("/destinations/none.json").status_code) == (404, 404)
        described = ada.get("/openapi.json").json()
    assert "get" in described["paths"]["/destinations/{name}.json"]
    assert {"failed_by_cause", "died_by_cause"} <= set(described["components"]["schemas"]["Series"]["properties"])


def test_what_is_in_the_database_is_text_and_nothing_else(dashboard: Dashboard, database: Database) -> None:
    asyncio.run(fill(database))
    database.execute("UPDATE outbox_delivery SET reason = :reason", reason=HOSTILE)
    with client(dashboard) as ada:
        html = "".join(ada.get(path).text for path in (*PAGES, "/destinations/a"))
    assert "&lt;script&gt;" in html
    assert "<img" not in html
    assert html.replace("\n", "").isprintable()


def test_every_page_has_the_same_facts_as_json_and_the_api_is_described(dashboard: Dashboard) -> None:
    with client(dashboard) as ada:
        described = ada.get("/openapi.json").json()["paths"]
        for path in PAGES:
            name = "/overview.json" if path == "/" else f"{path}.json"
            assert ada.get(name).status_code == 200
            assert "get" in described[name]
    assert {"/dead/retry.json", "/dead/edit.json", "/replay.json"} <= {
        p for p, verbs in described.items() if "post" in verbs
    }


def test_a_page_says_that_a_table_is_gone(sqlite_database: Database) -> None:
    with serving(settings(sqlite_database)) as found, client(found) as ada:
        assert ada.get("/audit").status_code == 200
        sqlite_database.execute("ALTER TABLE outbox_audit RENAME TO gone")

        def is_said() -> bool:
            return ada.get("/audit.json").status_code == 503

        eventually(is_said, what="the page says that the table is gone")


# ------------------------------------------------------------------------------------------------------ the command


def test_the_command_prints_a_token_once_and_asks_for_it(spawn: Spawner, sqlite_database: Database) -> None:
    port = free_port()
    process = spawn("outbox", "dashboard", "--port", str(port), env={"DATABASE_URL": sqlite_database.url})
    process.wait_for_output("the token, for this run only:", deadline_s=30)
    token = process.stderr.split("for this run only: ")[1].split()[0]
    url = f"http://127.0.0.1:{port}/overview.json"
    assert httpx.get(url, timeout=60, verify=False).status_code == 401
    assert httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=60, verify=False).status_code == 200
    process.interrupt()
    assert process.wait() == 0
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "db.example"])
def test_it_listens_on_the_loopback_address_unless_told_otherwise(
    run: Run, sqlite_database: Database, host: str
) -> None:
    ended = run("dashboard", "--host", host, url=sqlite_database.url)
    assert (ended.returncode, "--allow-remote" in ended.stderr) == (2, True)


def test_a_weak_token_and_a_header_without_a_proxy_are_refused(run: Run, sqlite_database: Database) -> None:
    assert "too short" in run("dashboard", url=sqlite_database.url, OUTBOX_DASHBOARD_TOKEN="secret").stderr
    ended = run("dashboard", "--user-header", "X-User", url=sqlite_database.url)
    assert (ended.returncode, "--proxy" in ended.stderr) == (2, True)


def test_what_is_redacted_is_masked_on_the_command_line_too(run: Run, sqlite_database: Database) -> None:
    asyncio.run(fill(sqlite_database))
    id_ = str(sqlite_database.scalar("SELECT min(message_id) FROM outbox_delivery"))
    secret = "xxxxxxxxx"
    sqlite_database.execute("UPDATE outbox_delivery SET reason = :reason", reason=f"HTTP 422: {secret} is no address")
    for options in ((), ("--json",)):
        ended = run("messages", "show", id_, *options, url=sqlite_database.url, OUTBOX_REDACT="data.pad")
        assert (ended.returncode, secret in ended.stdout, "***" in ended.stdout) == (0, False, True)
        assert secret in run("messages", "show", id_, *options, url=sqlite_database.url).stdout


def test_without_an_outbox_it_says_what_to_run(run: Run, empty_postgres: Database) -> None:
    ended = run("dashboard", url=empty_postgres.url)
    assert (ended.returncode, "outbox db upgrade" in ended.stderr) == (3, True)
