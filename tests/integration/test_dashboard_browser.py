"""The dashboard in a real browser: no page breaks, calls another host or runs foreign code, and everyone can use it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from support import showcase
from support.browser import chromium, pages_of, program, ready
from support.dashboards import VIEWER, Dashboard, serving
from support.databases import Database, SqliteDatabases
from support.scene import Scene, Taker, rejecting, to

from relay.admin.access.queries import now
from relay.admin.timeline.samples import store
from relay.settings import Settings

pytestmark = pytest.mark.skipif(program() is None, reason="there is no Chromium here")

pytest.importorskip("playwright")
from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import BrowserContext, Page, expect  # noqa: E402

HOSTILE = "<script>window.pwned = 1</script>\"'><img src=x onerror='window.pwned=1'>{{7*7}}"


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    with chromium() as found:
        yield found


@pytest.fixture
def scene(sqlite_databases: SqliteDatabases, tmp_path: Path) -> Iterator[Scene]:
    """Messages with hostile names everywhere, of which three are dead; and three documents."""
    database = Database("sqlite", sqlite_databases.copy_to(tmp_path / "test.db"))
    found = Scene(database)
    found.emit(6, ordering_key=HOSTILE, subject=HOSTILE)
    found.emit(2, type="page.noise")
    found.emit(1, type="debug.noise")
    drain = found.drain({"a": to(Taker(rejecting(0, 6, 7)), events=["page.*"])})
    with ThreadPoolExecutor() as threads:  # Playwright's loop runs in this thread
        threads.submit(asyncio.run, drain).result()
    database.execute("UPDATE outbox_delivery SET reason = :text WHERE state = 'dead'", text=f"422 {HOSTILE}")
    for count in (10, 60):
        showcase.add_document(database.engine, f"doc {HOSTILE} {count}", f"{HOSTILE} {count}", count)
    showcase.add_samples(database.engine, hours=0.3)
    yield found
    database.dispose()


@pytest.fixture
def dashboard(scene: Scene) -> Iterator[Dashboard]:
    with serving(scene.settings({}), allow_changes=True) as found:
        yield found


@contextmanager
def watched(page: Page, dashboard: Dashboard) -> Iterator[None]:
    """Fail when the console shows an error, or a page asks another host for anything."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(dashboard.url) else said.append(request.url))
    yield
    assert said == []
    assert page.evaluate("window.pwned") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_works_and_everyone_can_use_it(
    browser: BrowserContext, dashboard: Dashboard, scene: Scene, scheme: str
) -> None:
    axe = Axe()
    with dashboard.logged_in(browser, scheme=scheme, width=1440 if scheme == "light" else 390) as page:
        pages = pages_of(scene.database.engine)
        for path in [pages[name] for name in pages if scheme == "light" or name in ("overview", "dead", "message")]:
            with watched(page, dashboard):
                ready(page, dashboard.url + path)
                found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
                serious = [
                    (path, each["id"], each["nodes"][0]["html"])
                    for each in found
                    if each["impact"] in ("serious", "critical")
                ]
                assert serious == []
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"


# The texts of buttons that are narrower than their text.
CUT_OFF = """
[...document.querySelectorAll('main button, main .button, header button')]
    .filter(each => each.offsetParent && each.scrollWidth > each.clientWidth + 1).map(each => each.innerText)
"""
# A table that has to be scrolled sideways.
TOO_WIDE = """
[...document.querySelectorAll('main .scroll')]
    .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.getAttribute('aria-label'))
"""
# A topic that is not in the picture.
OUT_OF_SIGHT = """
[...document.querySelectorAll('#graph circle')].filter(each => {
    const box = document.getElementById('graph').getBoundingClientRect(), at = each.getBoundingClientRect();
    return at.left < box.left || at.right > box.right || at.top < box.top || at.bottom > box.bottom;
}).map(each => each.dataset.name)
"""


def test_on_a_phone_tables_fit_and_a_small_graph_is_seen_whole(
    browser: BrowserContext, dashboard: Dashboard, scene: Scene
) -> None:
    pages = pages_of(scene.database.engine)
    cause = scene.database.scalar("SELECT max(fingerprint) FROM outbox_delivery WHERE state = 'dead'")
    tables = ["/messages", f"/dead?cause={cause}", "/audit"]
    with dashboard.logged_in(browser, width=360, height=800) as page:
        for path in tables:
            ready(page, dashboard.url + path)
            assert page.locator("main .scroll table").count() == 1, path
            assert page.evaluate(TOO_WIDE) == [], path
        page.goto(dashboard.url + next(path for name, path in pages.items() if name.endswith(" 10")))
        page.wait_for_selector("#graph[data-ready]")
        assert page.locator("#graph circle").count() == 10
        assert page.evaluate(OUT_OF_SIGHT) == []


def test_on_a_phone_no_button_is_cut_off_and_the_header_has_one_line(
    browser: BrowserContext, dashboard: Dashboard, scene: Scene
) -> None:
    with dashboard.logged_in(browser, width=360, height=800) as page:
        for path in pages_of(scene.database.engine).values():
            ready(page, dashboard.url + path)
            assert page.evaluate(CUT_OFF) == [], path
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"
        brand, foot = page.locator(".brand").bounding_box(), page.locator(".foot").bounding_box()
        assert brand is not None
        assert foot is not None
        assert foot["y"] < brand["y"] + brand["height"], "the name and the user share a line"


def test_a_wrong_token_opens_nothing_and_a_viewer_finds_no_verbs(browser: BrowserContext, dashboard: Dashboard) -> None:
    page = browser.new_page()
    page.goto(f"{dashboard.url}/dead")
    assert "/login?to=" in page.url
    page.fill("#token", "a wrong token of some length")
    page.click("button")
    expect(page.get_by_role("alert")).to_contain_text("is not valid")
    page.fill("#token", VIEWER)
    page.click("button")
    page.wait_for_url(f"{dashboard.url}/dead")
    expect(page.get_by_text("You may only look")).to_be_visible()
    assert page.get_by_text("Discard").count() == 0
    page.close()
    browser.clear_cookies()


def test_the_search_is_in_the_address_and_a_message_tells_its_life(
    browser: BrowserContext, dashboard: Dashboard
) -> None:
    with dashboard.logged_in(browser) as page, watched(page, dashboard):
        page.goto(f"{dashboard.url}/messages")
        page.keyboard.press("/")
        page.keyboard.type("state:blocked")
        page.keyboard.press("Enter")
        page.wait_for_url("**/messages?q=state%3Ablocked")
        page.locator("tbody a").first.click()
        expect(page.get_by_text("retry or discard that one").first).to_be_visible()
        page.locator("dd a.mono").first.click()
        page.wait_for_url(re.compile("/messages[?]q=key%3A"))


def test_verbs_ask_first_and_show_how_far_they_are(browser: BrowserContext, dashboard: Dashboard, scene: Scene) -> None:
    with dashboard.logged_in(browser) as page, watched(page, dashboard):
        page.goto(f"{dashboard.url}/dead?type=page.noise")
        page.get_by_role("link", name="Retry 2").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Retry 2 dead letters?")
        page.fill("#reason", "mended")
        page.get_by_role("button", name="Retry 2").click()
        expect(page.locator("#job")).to_contain_text("2 of 2")
        page.goto(f"{dashboard.url}/destinations")
        page.get_by_placeholder("reason").fill("until noon")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_text("until noon (Ada)")).to_be_visible()
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        id_ = str(scene.database.scalar("SELECT message_id FROM outbox_delivery WHERE state = 'dead'"))
        page.goto(f"{dashboard.url}/dead/edit?id={id_}")
        page.fill("#data", '{"n": 99}')
        page.get_by_role("button", name="Edit and retry").click()
        expect(page.locator("#job")).to_contain_text("1 of 1")
        page.goto(f"{dashboard.url}/audit")
        expect(page.locator("tbody tr").first).to_contain_text("Ada")
        expect(page.locator("tbody tr").first).to_contain_text("dead edit")


def test_a_destination_is_tested_from_its_card(browser: BrowserContext, scene: Scene) -> None:
    def configured() -> Settings:
        return scene.settings({"a": to(Taker(), events=["page.*"])})

    with (
        serving(scene.settings({}), load_settings=configured) as dashboard,
        dashboard.logged_in(browser) as page,
        watched(page, dashboard),
    ):
        page.goto(f"{dashboard.url}/destinations")
        page.get_by_role("link", name="Test").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Test of a")
        expect(page.get_by_text("can be reached")).to_be_visible()
        expect(page.get_by_text("the listener exists")).to_be_visible()
        page.get_by_role("link", name="Go back").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Destinations")


def test_an_open_page_follows_what_happens(browser: BrowserContext, dashboard: Dashboard, scene: Scene) -> None:
    with dashboard.logged_in(browser) as page, watched(page, dashboard):
        page.goto(dashboard.url)
        expect(page.locator(".u-legend").first).to_be_visible()
        before = int(page.locator(".tile", has_text="Unrouted").locator("dd").inner_text().split()[0])
        scene.emit(3, type="debug.noise")
        scene.database.execute("UPDATE outbox_message SET state = 'unrouted' WHERE type = 'debug.noise'")
        tile = page.locator(".tile", has_text="Unrouted").locator("dd")
        expect(tile).to_contain_text(str(before + 3))


def test_plots_show_causes_and_follow_the_chosen_time(
    browser: BrowserContext, dashboard: Dashboard, scene: Scene
) -> None:
    with scene.database.engine.begin() as connection:
        causes = {"a": {HOSTILE: {"failed": 30, "dead": 4}, "only failed": {"failed": 20}, "only died": {"dead": 5}}}
        facts = {"verdicts": {"a": {"delivered": 60}}, "latencies": {"a": [60.0]}, "causes": causes}
        store(connection, now(connection) - timedelta(seconds=40), "late", 15, facts)
    with dashboard.logged_in(browser) as page, watched(page, dashboard):
        for path in ("/", "/destinations/a"):
            ready(page, dashboard.url + path)
            for chart in ("failed", "died"):
                expect(page.locator(f"[data-chart={chart}] .u-label", has_text="<script>")).to_be_visible()
                expect(page.locator(f"[data-chart={chart}] .u-label", has_text=f"only {chart}")).to_be_visible()
                assert page.locator(f"[data-chart={chart}] .u-label", has_text="only ").count() == 1
        expect(page.locator("[data-unit]")).to_have_text("new ones per minute")
        page.locator("[data-chart=latency] .u-over").hover()
        expect(page.locator("[data-chart=latency] time")).not_to_be_empty()
        page.get_by_role("button", name="24h").click()
        expect(page.locator("[data-unit]")).to_have_text("new ones per 30 minutes")


def test_a_value_without_neighbours_is_drawn_as_a_point(browser: BrowserContext, dashboard: Dashboard) -> None:
    """A line needs two values: without points, a plot of the first minute would be empty."""
    with dashboard.logged_in(browser) as page, watched(page, dashboard):
        ready(page, dashboard.url)
        assert page.evaluate("isolated({ data: [[], [null, 0, null, 2, 3, null, 4]] }, 1)") == [1, 6]
        assert page.evaluate("isolated({ data: [[], [null, 2, 3, null]] }, 1)") is None


def test_the_graph_answers_to_a_pointer_and_a_search(
    browser: BrowserContext, dashboard: Dashboard, scene: Scene
) -> None:
    paths = [path for name, path in pages_of(scene.database.engine).items() if name.startswith("graph")]
    with dashboard.logged_in(browser) as page, watched(page, dashboard):
        page.goto(dashboard.url + paths[-1])
        page.wait_for_selector("#graph[data-ready]")
        assert page.locator("#graph circle").count() == 60
        page.locator("#graph circle").first.hover()
        expect(page.locator("#said")).to_contain_text("occurs with")
        page.fill("#find", "shard")
        expect(page.locator("#graph")).to_have_class("topic-graph focused")
        page.get_by_role("button", name="Zoom in").click()
        assert "scale(1.3333)" in (page.locator("#graph .view").get_attribute("transform") or "")
        with page.expect_download() as download:
            page.get_by_role("link", name="SVG").click()
        assert download.value.suggested_filename == "topic-graph.svg"


def test_hostile_text_was_there_to_be_shown(scene: Scene) -> None:
    with scene.database.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM contents WHERE title LIKE '%<script>%'")) == 2
