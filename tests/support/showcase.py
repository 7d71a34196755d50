"""A database with the data of a working day, for the screenshots and the dashboard's tests."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from listeners.graph import Topic, build_baseline
from outbox import Draft, Message, Reject, emit_many
from outbox.tables import tables
from relay import HttpSettings, ListenerSettings, Settings
from relay.admin.access.queries import now
from relay.admin.destinations.listing import pause
from relay.admin.timeline.samples import EVERY_S, WHOLE, end_of_step
from relay.decide.outcome import cause_of

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
        raise Reject(CAUSES[(0, 1, 0, 2, 0, 1, 0, 3)[n // 23 % 8]])


def destinations() -> dict[str, ListenerSettings | HttpSettings]:
    """Return five destinations, of which one is down, and one is paused later."""
    return {
        "api": ListenerSettings(listener=refusing, events=["order.*", "invoice.*"]),
        "mailer": HttpSettings(url="http://127.0.0.1:9/hooks/mail", events=["customer.*"], on_dead="skip"),
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
    with engine.begin() as connection:  # as if an HTTP receiver had answered
        connection.execute(sa.text(f"UPDATE outbox_delivery SET reason = replace(reason, '{PREFIX}', '')"))
    pause(engine, "warehouse", reason="stocktaking until noon")
    with engine.begin() as connection:
        at = now(connection)
        emit_many(connection, [Draft("debug.seen", {"order": n}) for n in range(3)])
        later = [Draft("order.reminder", {"order": n}, due_at=at + timedelta(hours=6 + n)) for n in range(1, 5)]
        emit_many(connection, later)
    emit_orders(engine, 40, first=10_001)


def add_samples(engine: sa.Engine, *, hours: float = 1.0) -> None:
    """Write the samples of the time before now."""
    chance = random.Random(7)
    with engine.begin() as connection:
        connection.execute(sa.delete(tables().sample))
        at = now(connection)
        end = end_of_step(at, EVERY_S) - timedelta(seconds=EVERY_S)
        count = int(hours * 3600 / EVERY_S)
        emitted = connection.scalar(sa.select(sa.func.max(tables().message.c.position))) or 0
        begin = end - timedelta(seconds=EVERY_S * (count - 1))
        since_s = (at - end).total_seconds()  # the last one; the relays' own samples go on from there
        first = emitted - _rate(count) * since_s - sum(map(_rate, range(count))) * EVERY_S
        rows = [row for n in range(count) for row in _sample(begin + timedelta(seconds=EVERY_S * n), n, chance, first)]
        connection.execute(sa.insert(tables().sample), rows)


def _sample(at: datetime, n: int, chance: random.Random, first: float) -> list[dict[str, Any]]:
    rate = _rate(n) + chance.uniform(-6, 6)
    is_down = 150 <= n < 170
    behind = max(0, min(n - 150, 20) * 420 - max(0, n - 170) * 560)
    facts = {
        "emitted": first + sum(map(_rate, range(n + 1))) * EVERY_S,
        "waiting": chance.randint(20, 60) + behind,
        "dead": 14 + n // 9,
        "unrouted": 3,
        "due_age_s": chance.uniform(0, 0.4) + (max(0, n - 150) * EVERY_S if is_down else behind / 30),
        "destinations": {
            "api": {"waiting": behind, "dead": 14 + n // 9, "state": "healthy", "due_age_s": behind / 30},
            "mailer": {"waiting": 3 * max(0, n - 190), "dead": 0, "state": "paused", "due_age_s": 15 * max(0, n - 190)},
        },
    }
    shares = {"api": 0.3, "reports": 0.4, "search": 0.2, "mailer": 0.0 if n > 190 else 0.1, "warehouse": 0.08}
    taken = {name: rate * EVERY_S * share for name, share in shares.items()}
    if is_down:
        taken["api"] *= 0.05
    elif behind:
        taken["api"] *= 1.8
    verdicts: dict[str, dict[str, float]] = {name: {"delivered": count} for name, count in taken.items() if count}
    verdicts["api"] |= {"retry": taken["api"] * 0.02, "dead": len(_deaths(n))}
    latencies = {name: _latencies(count, name, chance, slow=name == "api" and behind) for name, count in taken.items()}
    done = {"verdicts": verdicts, "latencies": latencies, "causes": _causes(n, chance, is_down=is_down)}
    return [
        {"at": at, "relay": WHOLE, "span_s": EVERY_S, "facts": facts},
        {"at": at, "relay": "relay", "span_s": EVERY_S, "facts": done},
    ]


def _rate(n: int) -> float:
    return 90 + 40 * math.sin(n / 50) + 12 * math.sin(n / 7)


def _latencies(count: float, name: str, chance: random.Random, *, slow: float) -> list[float]:
    """Spread deliveries over the classes of latency: most around one class, a few above."""
    middle = 10 if slow else {"api": 2, "reports": 1, "search": 1, "mailer": 4, "warehouse": 3}[name]
    found = [0.0] * (middle + 5)
    for offset, share in ((-1, 0.25), (0, 0.52), (1, 0.19), (2, 0.03 + chance.uniform(-0.015, 0.015)), (3, 0.008)):
        found[max(middle + offset, 0)] += count * share
    return found


def _deaths(n: int) -> list[str]:
    """Return the causes of what died in this sample."""
    return [cause_of(CAUSES[k]) for k, every in enumerate((19, 31, 47, 67)) if n % every == every // 2]


def _causes(n: int, chance: random.Random, *, is_down: bool) -> dict[str, Any]:
    api: dict[str, dict[str, float]] = {
        "answered 500 Internal Server Error": {"failed": chance.randint(0, 6)},
        "no complete answer within … s": {"failed": chance.randint(0, 2)},
    }
    if is_down:
        api["answered 503 Service Unavailable"] = {"failed": 24 + chance.randint(0, 20)}
    for cause in _deaths(n):
        api[cause] = {"failed": 1, "dead": 1}
    mailer = {"no connection to smtp.internal:…: Connection refused": {"failed": 3}} if n > 190 else {}
    return {"api": api, "mailer": mailer}


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
    """Make a topic that belongs to a theme: its sentences are mostly those of the theme."""
    themes = max(2, min(9, count // 6))
    start = (n % themes) * 60
    occurs = max(3, int(26 / (1 + n / themes) ** 0.6))
    own = {start + chance.randrange(60) for _ in range(occurs)}
    other = {chance.randrange(themes * 60) for _ in range(occurs // 5)}
    return Topic(topic=name, weight=round(1 / (1 + n) ** 0.5, 4), sentences=frozenset(own | other))
