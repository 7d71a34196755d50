"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import sqlalchemy as sa
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--process-per-site"]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    """Return the path of a browser, if there is one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[BrowserContext]:
    """Start a headless browser, with patience for a busy machine.

    All pages of the loopback address are in one process: a new one would compile all scripts again.
    """
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=ARGUMENTS)
        context = browser.new_context()
        context.set_default_timeout(30_000)
        keeping_the_process = context.new_page()
        keeping_the_process.route("**/*", lambda route: route.fulfill(body=""))
        keeping_the_process.goto("http://127.0.0.1/")
        yield context
        browser.close()


def pages_of(engine: sa.Engine) -> dict[str, str]:
    """Return every page for the contents of this database: name → path."""
    found = {
        "overview": "/",
        "messages": "/messages?q=state:dead",
        "dead": "/dead",
        "destinations": "/destinations",
        "replay": "/replay?to=reports&type=order.*&since=1d",
        "audit": "/audit",
        "content": "/content",
    }
    with engine.connect() as connection:
        first = connection.scalar(sa.text("SELECT min(name) FROM outbox_destination"))
        found["destination"] = f"/destinations/{first}"
        dead = connection.scalar(
            sa.text("SELECT max(CAST(message_id AS text)) FROM outbox_delivery WHERE state = 'dead'")
        )
        documents = connection.scalars(sa.text("SELECT id FROM contents ORDER BY id")).all()
    if dead is not None:
        found |= {"message": f"/messages/{dead}", "edit": f"/dead/edit?id={dead}"}
    return found | {f"graph-{id_}": f"/content/document?{urlencode({'id': id_})}" for id_ in documents}


def ready(page: Page, url: str) -> None:
    """Load a page, and wait until its plots are there."""
    page.goto(url)
    page.wait_for_load_state("load")
    if page.locator("[data-chart]").count():
        page.locator("body[data-plotted='true']").wait_for(state="attached")  # a function would need 'unsafe-eval'


def shoot(page: Page, url: str, path: Path) -> None:
    """Take a picture of a whole page."""
    ready(page, url)
    page.screenshot(path=path, full_page=True)
