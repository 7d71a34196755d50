"""The demo, in one process: a worker commits results and messages, and a relay delivers them at the same time.

The worker runs in its own thread, as if it were another process: the two share only the database.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from listeners.content import latest_extraction
from listeners.tables import BASELINE, TopicGraph
from outbox.tables import tables
from outbox_demo.documents import Document, Skipped, find_documents, read_documents
from outbox_demo.packages import installed_descriptions
from outbox_demo.report import LINES_SHOWN, Line, Report
from outbox_demo.screen import Screen
from outbox_demo.worker import extract
from relay.admin.access.queries import snapshot
from relay.admin.status import status
from relay.destinations.listener.settings import ListenerSettings
from relay.platform import migrations
from relay.platform.database import Database
from relay.platform.guide import BASELINE_LISTENER, COMPLETED
from relay.relay import Relay
from relay.settings import Settings

LOOK_EVERY_S = 0.1
PATIENCE_S = 20.0  # how long the demo waits without a delivery before it ends
PAGE_SIZE = 500
STRONGEST = 4


def where(database: Database) -> str:
    """Return the address of a database, for people."""
    return str(database.path.absolute()) if database.is_file else str(database)


def sources(paths: Sequence[Path]) -> tuple[int, Iterator[Document | Skipped]]:
    """Return the count of documents, and the documents, each read when the iterator reaches it."""
    if not paths:
        descriptions = installed_descriptions()
        return len(descriptions), iter(descriptions)
    files = find_documents(paths)
    return len(files), iter(read_documents(files, named=paths))


def work(
    engine: sa.Engine,
    documents: Iterable[Document | Skipped],
    report: Report,
    screen: Screen,
) -> Iterator[Line]:
    """Extract one document after another, and commit each with its message in one transaction."""
    for document in documents:
        if isinstance(document, Skipped):
            report.skipped.append(document)
            screen.skipped(document)
        else:
            found = extract(engine, document)
            line = Line(document, found.topics, message_id=found.message_id)
            report.lines.append(line)
            screen.extracted(line)
            yield line


async def run(settings: Settings, paths: Sequence[Path], screen: Screen) -> Report:
    """Create what is missing, extract, deliver, and return what happened.

    Args:
        settings: The settings of the database. The destination is always the baseline listener.
        paths: Files and folders; if empty, the descriptions of the installed packages.
        screen: Shows the progress.
    """
    database = settings.database
    applied = await asyncio.to_thread(migrations.upgrade, settings.database_url, schema=settings.schema_name)
    screen.database(where(database), applied)
    engine = database.engine()
    try:
        return await _run(engine, _with_baseline(settings), paths, screen)
    finally:
        engine.dispose()


async def _run(engine: sa.Engine, settings: Settings, paths: Sequence[Path], screen: Screen) -> Report:
    count, documents = await asyncio.to_thread(sources, paths)
    screen.documents(count)
    report, stopping = Report(), threading.Event()
    before = await asyncio.to_thread(_delivered_in_total, engine)
    async with Relay(settings):
        lines = work(engine, documents, report, screen)
        working = asyncio.create_task(asyncio.to_thread(_work_until, stopping, lines))
        try:
            await _watch(engine, working, report, screen)
        finally:
            stopping.set()
            await working
    await asyncio.to_thread(_complete, engine, report, before)
    return report


def _work_until(stopping: threading.Event, lines: Iterator[Line]) -> None:
    for _ in lines:
        if stopping.is_set():
            return


async def _watch(engine: sa.Engine, working: asyncio.Task[None], report: Report, screen: Screen) -> None:
    """Check deliveries until all messages are delivered, or until none was delivered for a while."""
    last_change_at = time.monotonic()
    while not working.done() or report.waiting or await asyncio.to_thread(_anything_waits, engine):
        await asyncio.wait([working], timeout=LOOK_EVERY_S) if not working.done() else await asyncio.sleep(LOOK_EVERY_S)
        settled = report.delivered + report.dead
        await asyncio.to_thread(look, engine, report)
        screen.delivered(report.delivered)
        if not working.done() or report.delivered + report.dead > settled:
            last_change_at = time.monotonic()
        if time.monotonic() - last_change_at > PATIENCE_S:
            return


def look(engine: sa.Engine, report: Report) -> None:
    """Note which messages of this run have been delivered so far."""
    lines = {line.message_id: line for line in list(report.lines) if line.is_new}
    unseen = [line.message_id for line in lines.values() if line.delivered_after_s is None]
    history, delivery = tables().history, tables().delivery
    with engine.connect() as connection:
        for page in _pages(unseen):
            query = sa.select(history.c.id, history.c.created_at, history.c.delivered_at).where(history.c.id.in_(page))
            for row in connection.execute(query):
                lines[row.id].delivered_after_s = max(0.0, (row.delivered_at - row.created_at).total_seconds())
        dead = sa.select(delivery.c.message_id).where(delivery.c.state == "dead")
        report.dead = sum(row.message_id in lines for row in connection.execute(dead))
    report.delivered = sum(line.delivered_after_s is not None for line in lines.values())


def _complete(engine: sa.Engine, report: Report, delivered_before: int) -> None:
    """Look up topics and graphs, and the messages of earlier runs."""
    look(engine, report)
    report.earlier = max(0, _delivered_in_total(engine) - delivered_before - report.delivered)
    lines = {line.document.id: line for line in report.lines}
    graph: Any = TopicGraph.__table__
    with engine.connect() as connection:
        for page in _pages(list(lines)):
            query = sa.select(graph.c.content_id, graph.c.node_count, graph.c.edge_count).where(
                graph.c.content_id.in_(page), graph.c.type == BASELINE
            )
            for row in connection.execute(query):
                lines[row.content_id].nodes, lines[row.content_id].edges = row.node_count, row.edge_count
    with Session(engine) as session:
        for line in report.lines[:LINES_SHOWN]:
            extraction = latest_extraction(session, line.document.id)
            line.strongest = [topic["topic"] for topic in extraction.topics[:STRONGEST]] if extraction else []


def _anything_waits(engine: sa.Engine) -> bool:
    with snapshot(engine) as connection:
        found = status(connection)
    return found.waiting > found.scheduled + found.retrying


def _delivered_in_total(engine: sa.Engine) -> int:
    with snapshot(engine) as connection:
        return status(connection).delivered


def _with_baseline(settings: Settings) -> Settings:
    """Return the settings with the baseline listener as the only destination, and with a history to query."""
    baseline = ListenerSettings(listener=BASELINE_LISTENER, events=[COMPLETED])
    changes = {
        "destinations": {"baseline": baseline},
        "health_port": 0,
        "retention_days": max(1, settings.retention_days),
    }
    return settings.model_copy(update=changes)


def _pages(ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (ids[i : i + PAGE_SIZE] for i in range(0, len(ids), PAGE_SIZE))
