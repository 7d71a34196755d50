"""The objects that every page needs, and the rendering of pages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from fastapi import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from outbox.errors import OutboxError
from outbox_cli.dashboard import rendering
from outbox_cli.dashboard.access import Access, Person
from outbox_cli.dashboard.cached import Cached
from outbox_cli.dashboard.facts.overview import Overview, overview
from outbox_cli.dashboard.jobs import Jobs
from outbox_cli.dashboard.reader import TIMEOUT_S, Reader
from relay.admin.access.deadline import TooMuch
from relay.admin.doctor import examine
from relay.observe.text import shown
from relay.platform.finding import Finding
from relay.settings import Settings

FINDINGS_FRESH_S = 60.0
LATE_S = 300.0
LOOK_S = 30.0  # how long reading the overview may take: it runs in the background, and its last result is shown


@dataclass
class Site:
    """One dashboard.

    Args:
        settings: The settings of the database.
        access: The access rules.
        refresh_s: The shortest time between two reads, in seconds.
        destinations: Tests a destination by its name, with the settings of this host.
    """

    settings: Settings
    access: Access
    refresh_s: float = 1.0
    load_settings: Callable[[], Settings] | None = None
    jobs: Jobs = field(default_factory=Jobs)

    def __post_init__(self) -> None:
        self.reader = Reader(self.settings)
        self.overview = Cached(self._look, fresh_s=max(self.refresh_s, 1.0) * 0.9)
        self.findings = Cached(self._examine, fresh_s=FINDINGS_FRESH_S)
        self._environment = rendering.environment()

    def close(self) -> None:
        """Close the connections."""
        self.reader.close()

    def warm_up(self) -> None:
        """Do the slow work of the first requests: compile the pages, connect, and read the overview."""
        for name in self._environment.list_templates():
            self._environment.get_template(name)
        with suppress(OutboxError, TooMuch, sa.exc.SQLAlchemyError):  # the pages report it
            self.overview.get()
            self.overview.forget()  # the first person gets a new result
        with suppress(OutboxError, TooMuch, sa.exc.SQLAlchemyError):
            self.findings.get(wait=False)

    def changed(self) -> None:
        """Read the data again, after a change."""
        self.reader.forget()
        self.overview.forget()

    def picture(self) -> Overview:
        """Return the overview."""
        found = self.overview.get()
        assert found is not None
        return found

    def patience_s(self, seconds: float) -> float:
        """Return how long the queries of a page may take: on a small outbox, longer, so a busy server loses no answer.

        Args:
            seconds: How long they may take on a large outbox.
        """
        with suppress(OutboxError, TooMuch, sa.exc.SQLAlchemyError):
            found = self.overview.get(wait=False)
            return TIMEOUT_S if found is not None and not found.is_large else seconds
        return seconds

    def _look(self) -> Overview:
        with self.reader.connected(LOOK_S) as connection:
            return overview(connection, str(self.settings.database))

    def _examine(self) -> list[Finding]:
        try:
            with self.settings.database.short_engine() as engine:
                found = examine(engine, lease_s=self.settings.lease_s, older_than_s=LATE_S)
        except (OutboxError, sa.exc.SQLAlchemyError) as error:
            why = "The other facts of this page do not depend on it."
            return [Finding("doctor", "note", f"not finished: {shown(error)}", why, "Run `outbox doctor`.")]
        return sorted(
            (each for each in found if each.severity != "ok"), key=lambda each: each.severity
        )  # bad findings first

    # -------------------------------------------------------------------------------------------------- answering

    def render(self, request: Request, template: str, /, status: int = 200, **facts: Any) -> HTMLResponse:
        """Answer with a page."""
        person: Person | None = getattr(request.state, "person", None)
        html = self._environment.get_template(template).render(
            person=person,
            access=self.access,
            root=request.scope.get("root_path", ""),
            path=request.scope["path"].removeprefix(request.scope.get("root_path", "")),
            version=rendering.version(),
            refresh_s=self.refresh_s,
            database=str(self.settings.database),
            status=status,
            **facts,
        )
        return HTMLResponse(html, status)

    def goto(self, request: Request, path: str) -> Response:
        """Redirect to another page of ours, so that a reload after a change does not repeat the change."""
        url = request.scope.get("root_path", "") + path
        if request.headers.get("hx-request"):
            return Response(status_code=204, headers={"HX-Redirect": url})
        return RedirectResponse(url, 303)


def site_of(request: Request) -> Site:
    """Return the dashboard that a request is for."""
    found = request.app.state.site
    assert isinstance(found, Site)
    return found
