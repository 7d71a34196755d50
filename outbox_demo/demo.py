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
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from listeners.tables import BASELINE, TopicGraph
from outbox.tables import tables
from outbox_demo.documents import Document, Skipped, find_documents, read_document
from outbox_demo.packages import installed_descriptions
from outbox_demo.report import Line, Report
from outbox_demo.worker import extract
from relay.databases import migrations
from relay.databases.database import Database
from relay.decide.verdict import State
from relay.destinations.listener.settings import ListenerSettings
from relay.platform.guide import BASELINE_LISTENER, COMPLETED
from relay.platform.wording import counted
from relay.relay import Relay
from relay.settings import Settings

LOOK_EVERY_S = 0.1
PATIENCE_S = 10.0  # how long to wait for messages that are still ready when all documents are extracted
PAGE_SIZE = 500


def where(database: Database) -> str:
    """Return the address of a database, for people."""
    return str(database.path.absolute()) if database.is_file else str(database)


def sources(paths: Sequence[Path]) -> tuple[int, Iterator[Document | Skipped]]:
    """Return the number of documents, and an iterator that reads each document when it reaches it."""
    if not paths:
        descriptions = installed_descriptions()
        return len(descriptions), iter(descriptions)
    files = find_documents(paths)
    return len(files), (read_document(file, named=is_named) for file, is_named in files.items())


def work(engine: sa.Engine, documents: Iterable[Document | Skipped], report: Report) -> Iterator[Line]:
    """Extract one document after another, and commit each with its message in one transaction."""
    for document in documents:
        if isinstance(document, Skipped):
            report.skipped.append(document)
        else:
            found = extract(engine, document)
            report.lines.append(Line(document, found.topics, found.message_id))
            yield report.lines[-1]


async def run(settings: Settings, paths: Sequence[Path], console: Console) -> Report:
    """Create the missing tables, extract, deliver, and return what happened.

    Args:
        settings: The settings of the database. The destination is always the baseline listener.
        paths: Files and folders; if empty, the descriptions of the installed packages.
        console: Shows the progress.
    """
    database = settings.database
    applied = await asyncio.to_thread(migrations.upgrade, settings.database_url, schema=settings.schema_name)
    note = f" (applied {', '.join(applied)})" if applied else ""
    console.print(f"Database: {where(database)}{note}", soft_wrap=True)
    count, documents = await asyncio.to_thread(sources, paths)
    console.print(f"Reading {counted(count, 'document')}.")
    report = Report()
    engine = database.engine()
    try:
        with _progress(console) as progress:
            extracting, delivering = progress.add_task("extracting", total=count), progress.add_task("delivering")

            def show() -> None:
                look(engine, report)
                progress.update(extracting, completed=len(report.lines) + len(report.skipped))
                progress.update(delivering, completed=len(report.delivered_after_s), total=len(report.new))

            async with Relay(_with_baseline(settings)) as relay:
                await _work_and_deliver(relay, engine, work(engine, documents, report), show)
        await asyncio.to_thread(_add_graphs, engine, report)
    finally:
        engine.dispose()
    return report


async def _work_and_deliver(relay: Relay, engine: sa.Engine, lines: Iterator[Line], show: Any) -> None:
    stopping = threading.Event()

    def work_until_stopped() -> None:
        for _ in lines:
            if stopping.is_set():
                return

    working = asyncio.create_task(asyncio.to_thread(work_until_stopped))
    try:
        while not working.done():
            await asyncio.wait([working], timeout=LOOK_EVERY_S)
            await asyncio.to_thread(show)
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            await relay.drain(look=False)
            await asyncio.to_thread(show)
            if not await asyncio.to_thread(_is_any_ready, engine):
                break  # a drain may have looked for the last time before the last message came
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        stopping.set()
        await working


def _is_any_ready(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        message = tables().message.c
        return connection.scalar(sa.select(message.id).where(message.state == State.READY).limit(1)) is not None


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, console=console, disable=not console.is_terminal)


def look(engine: sa.Engine, report: Report) -> None:
    """Note which messages of this run have been delivered so far."""
    lines = report.new
    unseen = [id for id, line in lines.items() if line.delivered_after_s is None]
    history, delivery = tables().history.c, tables().delivery.c
    with engine.connect() as connection:
        query = sa.select(history.id, history.created_at, history.delivered_at)
        for row in _rows(connection, query, history.id, unseen):
            lines[row.id].delivered_after_s = max(0.0, (row.delivered_at - row.created_at).total_seconds())
        dead = sa.select(delivery.message_id).where(delivery.state == State.DEAD)
        report.dead = sum(row.message_id in lines for row in connection.execute(dead))


def _add_graphs(engine: sa.Engine, report: Report) -> None:
    lines = {line.document.id: line for line in report.lines}
    graph: Any = TopicGraph.__table__.c
    query = sa.select(graph.content_id, graph.node_count, graph.edge_count).where(graph.type == BASELINE)
    with engine.connect() as connection:
        for row in _rows(connection, query, graph.content_id, list(lines)):
            lines[row.content_id].nodes, lines[row.content_id].edges = row.node_count, row.edge_count


def _rows(connection: sa.Connection, query: sa.Select[Any], column: Any, ids: Sequence[str]) -> Iterator[Any]:
    for start in range(0, len(ids), PAGE_SIZE):
        yield from connection.execute(query.where(column.in_(ids[start : start + PAGE_SIZE])))


def _with_baseline(settings: Settings) -> Settings:
    """Return the settings with the baseline listener as the only destination, and with a history to query."""
    baseline = ListenerSettings(listener=BASELINE_LISTENER, events=[COMPLETED])
    changes = {
        "destinations": {"baseline": baseline},
        "health_port": 0,
        "retention_days": max(1, settings.retention_days),
    }
    return settings.model_copy(update=changes)
