"""The front page, its plots, and the audit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Query

from outbox_cli.dashboard.facts.overview import Overview
from outbox_cli.dashboard.routes.answering import TheSite, Viewer, page
from relay.admin.access.queries import now
from relay.admin.audit import AuditEntry, record
from relay.admin.timeline.series import Series, series

router = APIRouter()

# span of time → its length and that of its steps, in seconds
SPANS = {
    "15m": (900, 15),
    "1h": (3600, 15),
    "6h": (21_600, 300),
    "24h": (86_400, 900),
    "7d": (604_800, 3600),
    "30d": (2_592_000, 10_800),
}
Span = Literal["15m", "1h", "6h", "24h", "7d", "30d"]
AUDIT_ROWS = 200


def overview(site: TheSite) -> Overview:
    """Return the overview: counts, rates, destinations, relays, dead letters by cause, the doctor's findings."""
    return replace(site.picture(), findings=site.findings.get(wait=False))


@dataclass(frozen=True)
class Audit:
    """Operators' actions, the latest first."""

    entries: list[AuditEntry]


def audit(site: TheSite) -> Audit:
    """Return operators' actions: time, person, action, object, count and reason."""
    return Audit(site.reader.ask("audit", lambda connection: record(connection, limit=AUDIT_ROWS)))


page(router, "/", "overview.html", overview, json_path="/overview.json")
page(router, "/audit", "audit.html", audit)


@router.get("/series.json", summary="What was measured over time: of the whole outbox, or of one destination")
def series_json(
    _person: Viewer,
    site: TheSite,
    span: Annotated[Span, Query()] = "1h",
    destination: Annotated[str | None, Query(max_length=63)] = None,
) -> Series:
    span_s, step_s = SPANS[span]

    def question(connection: sa.Connection) -> Series:
        end = now(connection)
        return series(connection, end - timedelta(seconds=span_s), end, step_s, destination=destination)

    fresh_s = min(span_s / 3600, 60.0)  # a longer span has longer steps, so its answer may be older
    return site.reader.ask(("series", span, destination), question, fresh_s=fresh_s)
