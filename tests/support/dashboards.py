"""A dashboard served in this process, by its real server, and users who are logged in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from playwright.sync_api import BrowserContext, Page, ViewportSize

from outbox_cli.dashboard import Access, Tokens, create_app
from relay.serving import listen, make_server
from relay.settings import Settings

OPERATOR, VIEWER = "operator-token-0123456789", "viewer-token-0123456789"


@dataclass(frozen=True)
class Dashboard:
    """A dashboard that listens.

    Args:
        url: Without a slash at the end.
        app: The application.
    """

    url: str
    app: Any

    @contextmanager
    def logged_in(
        self,
        context: BrowserContext,
        *,
        token: str = OPERATOR,
        scheme: Literal["light", "dark"] = "light",
        width: int = 1440,
        height: int = 900,
    ) -> Iterator[Page]:
        """Return an empty page of a user called Ada, who has logged in."""
        form = {"token": token, "name": "Ada", "to": "/"}
        answer = context.request.post(f"{self.url}/login", form=form, headers={"Origin": self.url}, max_redirects=0)
        assert answer.status == 303, answer.text()
        page = context.new_page()
        page.set_viewport_size(ViewportSize(width=width, height=height))
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        try:
            yield page
        finally:
            page.close()
            context.clear_cookies()


@contextmanager
def serving(settings: Settings, *, allow_changes: bool = False, **options: Any) -> Iterator[Dashboard]:
    """Serve a dashboard in a separate thread."""
    access = Access(tokens=Tokens(operator=OPERATOR, viewer=VIEWER), allow_changes=allow_changes)
    app = create_app(settings, access=access, hosts=["localhost"], **options)
    listening = listen("127.0.0.1", 0)
    server = make_server(app, receive_timeout_s=10, grace_s=1)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), name="dashboard")
    thread.start()
    try:
        yield Dashboard(f"http://127.0.0.1:{listening.getsockname()[1]}", app)
    finally:
        server.should_exit = True
        thread.join(15)
