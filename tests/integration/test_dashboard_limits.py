"""What the dashboard shows when there is too much to count: bounds and estimates, and the words for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from support.dashboards import OPERATOR, Dashboard, serving
from support.databases import Database
from support.scene import Scene, Taker, rejecting, to
from support.waiting import eventually

from outbox_cli.dashboard import site as dashboard_site
from outbox_cli.dashboard.facts import messages as facts
from outbox_cli.dashboard.facts import overview as overview_facts
from outbox_cli.dashboard.facts.letters import LATEST
from outbox_cli.dashboard.reader import TIMEOUT_S
from outbox_cli.dashboard.routes import dead, destinations
from outbox_cli.dashboard.site import Site
from relay import Settings
from relay.admin.access.deadline import TooMuch


@pytest.fixture
def dashboard(database: Database) -> Iterator[Dashboard]:
    with serving(Settings(database_url=database.url), allow_changes=True) as found:
        assert (
            httpx.get(f"{found.url}/login", timeout=60, verify=False).status_code == 200
        )  # waits: it listens before it is ready
        yield found


@pytest.fixture
def ada(dashboard: Dashboard) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {OPERATOR}", "X-Actor": "ada"}
    with httpx.Client(base_url=dashboard.url, headers=headers, timeout=60, verify=False) as found:
        yield found


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every exact count take too long."""
    monkeypatch.setattr(Site, "patience_s", lambda self, seconds: 0.0)


@pytest.fixture
def filled(database: Database) -> Database:
    """Eight messages, of which two die."""
    scene = Scene(database)
    scene.emit(8)
    asyncio.run(scene.drain({"a": to(Taker(rejecting(3, 5)), events=["page.*"])}))
    return database


def make_one_old(database: Database) -> None:
    earlier = "changed_at - interval '1 hour'" if database.kind == "postgres" else "datetime(changed_at, '-1 hour')"
    database.execute(
        f"UPDATE outbox_delivery SET reason = 'old', changed_at = {earlier} "
        "WHERE position = (SELECT min(position) FROM outbox_delivery)"
    )


def finished(ada: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def has_ended() -> bool:
        found.update(ada.get(f"/jobs/{answer.json()['job']['id']}.json").json())
        return bool(found["ended"])

    eventually(has_ended, deadline_s=30, what="the change ends")
    return found


@pytest.mark.usefixtures("impatient", "filled")
def test_dead_letters_that_take_too_long_to_count_are_at_least_some(ada: httpx.Client) -> None:
    found = ada.get("/dead.json", params={"type": "page.*"}).json()
    assert (found["total"], found["among"]) == (2, LATEST)
    assert "of the latest 5,000" in ada.get("/dead").text
    assert "Of its latest 5,000 dead letters" in ada.get("/destinations/a").text
    asked = ada.get("/dead/retry.json", params={"type": "page.*"}).json()
    assert (asked["count"], asked["among"]) == (2, LATEST)
    assert "Retry at least 2 dead letters?" in ada.get("/dead/retry", params={"type": "page.*"}).text
    assert "Retry all matching dead letters?" in ada.get("/dead/retry", params={"type": "nowhere"}).text
    done = finished(ada, ada.post("/dead/retry.json", json={"type": "page.*"}))
    assert (done["done"], done["is_least"], done["failed"]) == (2, True, None)


def test_the_front_page_shows_the_causes_of_the_latest_of_many_dead_letters(
    ada: httpx.Client, filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_one_old(filled)
    monkeypatch.setattr(overview_facts, "DEAD_AT_MOST", 1)
    monkeypatch.setattr(overview_facts, "LATEST", 1)
    said = ada.get("/overview.json").json()
    assert ([(each["count"], each["reason"] == "old") for each in said["causes"]], said["causes_among"]) == (
        [(1, False)],
        1,
    )
    assert "of the latest 1<" in ada.get("/").text


@pytest.mark.usefixtures("impatient")
def test_a_change_covers_the_dead_letters_that_were_not_looked_at(
    ada: httpx.Client, filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead, "LATEST", 1)
    make_one_old(filled)
    found = ada.get("/dead.json").json()
    assert ([cause["reason"] == "old" for cause in found["causes"]], found["among"]) == ([False], 1)
    assert ada.get("/dead/discard.json", params={"because": "old"}).json()["count"] == 0
    assert finished(ada, ada.post("/dead/discard.json", json={"because": "old"}))["done"] == 1


@pytest.mark.usefixtures("impatient")
def test_a_search_that_takes_too_long_looks_at_the_newest_and_says_so(
    ada: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(database)
    scene.emit_keys(["k"] * 3 + ["other"] * 4 + [None] * 3)
    asyncio.run(scene.drain({"a": to(Taker(rejecting(0, 5)), events=["page.*"])}))  # and 1 and 2 wait behind 0
    scene.emit(3, ordering_key="k")
    monkeypatch.setattr(facts, "LATEST", 2)
    found = ada.get("/messages.json", params={"q": "type:page.*"}).json()
    assert (len(found["messages"]), found["among"], found["trouble"]) == (2, 2, None)
    text = ada.get("/messages", params={"q": "type:page.*"}).text
    assert "These are of the newest 2." in text
    assert "None matches of the newest 2." in ada.get("/messages", params={"q": "type:nowhere"}).text
    of_key = ada.get("/messages.json", params={"q": "key:k"}).json()["messages"]
    ids = [each["id"] for each in of_key]
    assert [each["state"] for each in of_key] == ["ready"] * 2 + ["held"] * 3  # an index has these
    assert ids == sorted(ids, reverse=True)
    settled = ada.get("/messages.json", params={"q": "state:delivered type:page.*"}).json()["messages"]
    assert len(settled) == 2  # of five


@pytest.mark.usefixtures("impatient", "filled")
def test_a_search_that_takes_too_long_even_so_says_what_helps(
    ada: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: object, **__: object) -> None:
        raise TooMuch

    monkeypatch.setattr(facts, "list_messages", too_much)
    found = ada.get("/messages.json", params={"q": "type:page.*"}).json()
    assert (found["messages"], "too many messages" in found["trouble"]) == ([], True)


@pytest.mark.usefixtures("filled")
def test_a_replay_that_takes_too_long_to_count_says_so(ada: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: object, **__: object) -> None:
        raise TooMuch

    monkeypatch.setattr(destinations, "look", too_much)
    planned = ada.get("/replay.json", params={"to": "a", "type": "page.*"}).json()
    assert (planned["found"], "too many messages" in planned["trouble"]) == (None, True)
    assert ada.post("/replay.json", json={"to": "a", "type": "page.*"}).status_code == 503


def test_a_small_outbox_is_looked_at_in_full_and_a_large_one_is_not(dashboard: Dashboard) -> None:
    site: Site = dashboard.app.state.site
    assert site.patience_s(0.1) == TIMEOUT_S
    picture = site.picture()
    site.overview._value = replace(picture, status=replace(picture.status, delivered=1_000_000))
    site.overview._good_until = float("inf")
    assert site.patience_s(0.1) == 0.1


def test_the_slow_work_of_the_first_request_is_done_before_it(dashboard: Dashboard) -> None:
    site: Site = dashboard.app.state.site
    assert site.overview.get(wait=False) is not None
    cache = site._environment.cache
    assert cache is not None
    assert {"overview.html", "messages.html"} <= {name for _, name in cache.keys()}  # noqa: SIM118


def test_a_doctor_that_does_not_finish_is_a_finding_and_no_broken_page(
    ada: httpx.Client, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def canceled(*_: object, **__: object) -> None:
        raise sa.exc.OperationalError("SELECT", {}, Exception("canceling statement due to statement timeout"))

    monkeypatch.setattr(dashboard_site, "examine", canceled)
    dashboard.app.state.site.findings.forget()
    dashboard.app.state.site.findings.get()
    assert "not finished: canceling statement" in ada.get("/").text
