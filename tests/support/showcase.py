"""A database that looks like a working day: what the screenshots show, and what the dashboard's tests look at."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from listeners.graph import Topic, build_baseline
from outbox import Draft, Message, Reject, emit_many
from outbox.tables import tables
from relay import ListenerSettings, Settings
from relay.admin.access.queries import now
from relay.admin.destinations.listing import pause
from relay.admin.timeline.samples import EVERY_S, LATENCY_BOUNDS_S, WHOLE, floor

TYPES = ("order.placed", "order.paid", "order.shipped", "invoice.created", "customer.updated", "extraction.completed")
CAUSES = (
    "HTTP 422: currency 'XBT' is not supported",
    "HTTP 422: line 3: quantity must be positive",
    "HTTP 404: customer 48213 does not exist",
    "HTTP 409: invoice 2026-1187 was already booked",
)
PREFIX = "rejected by support.showcase:refusing: "
WORDS = [
    "graph",
    "topic",
    "node",
    "edge",
    "cluster",
    "model",
    "data",
    "query",
    "index",
    "cache",
    "shard",
    "relay",
    "queue",
    "token",
    "parser",
    "lexer",
    "schema",
    "table",
    "column",
    "row",
    "page",
    "block",
    "stream",
    "buffer",
    "socket",
    "thread",
    "lock",
    "event",
    "loop",
    "task",
    "signal",
    "kernel",
    "vector",
    "matrix",
    "tensor",
    "layer",
    "weight",
    "score",
    "rank",
    "label",
    "sample",
    "batch",
    "epoch",
    "metric",
    "trace",
    "span",
    "log",
    "alert",
    "proxy",
    "header",
    "cookie",
    "session",
    "user",
    "role",
    "policy",
    "key",
    "cipher",
    "hash",
    "salt",
    "nonce",
    "block",
    "chain",
    "ledger",
    "invoice",
    "order",
    "customer",
    "product",
    "price",
    "tax",
    "region",
    "store",
    "shipment",
    "carrier",
    "parcel",
    "return",
]


async def taking(message: Message) -> None:
    """Take everything."""


async def refusing(message: Message) -> None:
    """Refuse a few per cent, for one of few reasons."""
    n = message.data["order"]
    if n % 23 == 0:
        raise Reject(CAUSES[(n // 23) % len(CAUSES)])


def destinations() -> dict[str, ListenerSettings]:
    """Four of them, of which one is paused later."""
    return {
        "api": ListenerSettings(listener=refusing, events=["order.*", "invoice.*"]),
        "reports": ListenerSettings(listener=taking, events=["order.*", "invoice.*", "customer.*"], on_dead="skip"),
        "search": ListenerSettings(listener=taking, events=["customer.*", "order.*"]),
        "warehouse": ListenerSettings(listener=taking, events=["order.shipped"]),
    }


def settings(url: str, **options: Any) -> Settings:
    """Return the settings of a relay that works there."""
    return Settings(database_url=url, destinations=destinations(), health_port=0, **options)


def emit_orders(engine: sa.Engine, count: int, *, first: int = 0) -> None:
    """Commit messages of several types, keyed by customer."""
    drafts = [
        Draft(
            TYPES[n % 5],
            {
                "order": n,
                "customer": {"id": n % 400, "email": f"customer{n % 400}@example.com"},
                "total": 19.9 + n % 70,
            },
            ordering_key=f"customer-{n % 400}",
            subject=f"orders/{n}",
        )
        for n in range(first, first + count)
    ]
    with engine.begin() as connection:
        emit_many(connection, drafts)


def add_oddities(engine: sa.Engine) -> None:
    """Add messages that are unrouted, not due yet, or paused by an operator."""
    with engine.begin() as connection:  # as if it had been an HTTP receiver
        connection.execute(sa.text(f"UPDATE outbox_delivery SET reason = replace(reason, '{PREFIX}', '')"))
    pause(engine, "warehouse", reason="stocktaking until noon")
    with engine.begin() as connection:
        at = now(connection)
        emit_many(connection, [Draft("debug.seen", {"order": n}) for n in range(3)])
        later = [Draft("order.reminder", {"order": n}, due_at=at + timedelta(hours=6 + n)) for n in range(1, 5)]
        emit_many(connection, later)
    emit_orders(engine, 40, first=10_001)


def add_samples(engine: sa.Engine, *, hours: float = 1.0) -> None:
    """Write what would have been measured in the time before now."""
    chance = random.Random(7)
    with engine.begin() as connection:
        connection.execute(sa.delete(tables().sample))
        end = floor(now(connection), EVERY_S)
        count = int(hours * 3600 / EVERY_S)
        rows = [row for n in range(count) for row in _sample(end - timedelta(seconds=EVERY_S * (count - n)), n, chance)]
        connection.execute(sa.insert(tables().sample), rows)


def _sample(at: datetime, n: int, chance: random.Random) -> list[dict[str, Any]]:
    rate = 90 + 40 * math.sin(n / 50) + 12 * math.sin(n / 7) + chance.uniform(-6, 6)
    is_down = 150 <= n < 166
    emitted = sum(90 + 40 * math.sin(each / 50) + 12 * math.sin(each / 7) for each in range(n + 1)) * EVERY_S
    taken = rate * EVERY_S * (0.45 if is_down else 1.0)
    waiting = chance.randint(40, 90) + (
        max(0, n - 200) * 330 if is_down else max(0, 7260 - (n - 222) * 400) if n >= 222 else 0
    )
    latencies = [0.0] * (len(LATENCY_BOUNDS_S) + 1)
    for index, share in ((0, 0.3), (1, 0.45), (2, 0.18), (3, 0.05), (8 if is_down else 4, 0.02)):
        latencies[index] = taken * share
    verdicts = {
        "api": {
            "delivered": taken * 0.4,
            "retry": taken * (0.05 if is_down else 0.004),
            "dead": 2 if n % 37 == 0 else 0,
        },
        "reports": {"delivered": taken * 0.4},
        "search": {"delivered": taken * 0.2},
    }
    facts = {
        "emitted": emitted,
        "waiting": waiting,
        "dead": 30 + n // 9,
        "unrouted": 3,
        "due_age_s": 0.1,
        "destinations": {},
    }
    return [
        {"at": at, "relay": WHOLE, "span_s": EVERY_S, "facts": facts},
        {"at": at, "relay": "relay", "span_s": EVERY_S, "facts": {"verdicts": verdicts, "latencies": latencies}},
    ]


def add_document(engine: sa.Engine, id_: str, title: str, topics: int) -> None:
    """Write a document with an extraction and its baseline of the given number of topics."""
    chance = random.Random(topics)
    names = [
        f"{a} {b}" if topics > len(WORDS) else a for a in WORDS for b in (WORDS[7:12] if topics > len(WORDS) else [""])
    ]
    found = [_topic(name, n, topics, chance) for n, name in enumerate(dict.fromkeys(names))][:topics]
    graph = build_baseline(found)
    from listeners.tables import Content, Extraction, TopicGraph

    with sa.orm.Session(engine) as session, session.begin():
        session.add(
            Content(
                id=id_, title=title, source=f"/srv/library/{id_}.pdf", media_type="application/pdf", sha256="a" * 64
            )
        )
        session.flush()
        stored = [{"topic": t.topic, "weight": t.weight, "sentences": sorted(t.sentences)} for t in found]
        extraction = Extraction(content_id=id_, topics=stored)
        session.add(extraction)
        session.flush()
        session.add(
            TopicGraph(
                content_id=id_, extraction_id=extraction.id, type="BASELINE", graph=graph.as_json(),
                node_count=len(graph.nodes), edge_count=len(graph.edges),
            )
        )  # fmt: skip


def _topic(name: str, n: int, count: int, chance: random.Random) -> Topic:
    """Make a topic of one of a few themes: its sentences are mostly those of its theme."""
    themes = max(2, min(9, count // 6))
    start = (n % themes) * 60
    occurs = max(3, int(26 / (1 + n / themes) ** 0.6))
    own = {start + chance.randrange(60) for _ in range(occurs)}
    other = {chance.randrange(themes * 60) for _ in range(occurs // 5)}
    return Topic(topic=name, weight=round(1 / (1 + n) ** 0.5, 4), sentences=frozenset(own | other))
